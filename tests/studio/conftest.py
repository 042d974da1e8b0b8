"""A studio that is up for all tests of a file, over a small store."""

from __future__ import annotations

import contextlib

import pytest

from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.store import FeedbackStore
from studio.browsing import launched
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


@pytest.fixture(scope="module")
def browser():
    """One Chromium for a file; not for the session, whose other tests may run event loops."""
    with launched() as chromium:
        yield chromium


@pytest.fixture
def studio_of(tmp_path):
    """Starts a studio over these items, and these only."""
    with contextlib.ExitStack() as stack:

        def make(items, **settings):
            store = stack.enter_context(FeedbackStore(tmp_path / "feedback.sqlite"))
            store.add_items(items)
            return stack.enter_context(running(store, **{"repeat_share": 0.0} | settings))

        yield make
