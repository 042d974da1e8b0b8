"""A studio that is up for all tests of a file, over a small store."""

from __future__ import annotations

import pytest

from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.store import FeedbackStore
from studio.serving import running

SECRET = "gold-7f3a"
"""Stands wherever an annotator must not look: models, columns, extras."""


def pairs(num: int, start: int = 0) -> list[Item]:
    """Items of two answers each."""
    return [
        Item(
            f"item-{n}-{SECRET}",
            f"question {n}",
            tuple(
                Segment(f"answer {n}{side}", model=f"model-{SECRET}", extra={"note": SECRET})
                for side in "ab"
            ),
            {"gold": SECRET},
        )
        for n in range(start, start + num)
    ]


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with FeedbackStore(tmp_path_factory.mktemp("studio") / "feedback.sqlite") as store:
        store.add_items(pairs(60))
        with running(store) as up:
            yield up
