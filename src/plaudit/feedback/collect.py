"""Raters asked about items in turn, and what they said put into the store, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plaudit.feedback.entries import Item, Order, Preference, comparison_vote
from plaudit.feedback.raters import Rater
from plaudit.records.events import Checkpoint, Done, Event, Step

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore

NUM_TRANSACTIONS = 8
"""Into how many chunks, at least, all items are divided."""


def collect_votes(
    store: FeedbackStore,
    items: Sequence[Item],
    raters: Sequence[Rater],
    *,
    votes_per_pair: int,
    seed: int,
    saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Iterator[Event]:
    """Show every item to `votes_per_pair` of the raters, chosen at random.

    A rater is asked about all its items of a chunk at once. Keys are functions of item and rater, so
    that repeating a killed stage adds what is missing and nothing twice; with `saved`, a checkpoint's
    state, what the store holds already is not asked again.
    """
    size = max(1, len(items) // NUM_TRANSACTIONS)
    starts = range(0, len(items), size)
    begin, votes, ties = (saved[1][name] for name in _FACTS) if saved is not None else (0, 0, 0)
    said: dict[str, Preference] = {}
    if saved is None:
        yield _collected(0, 0, 0)
    for step in range(begin, len(starts)):
        chunk = items[starts[step] : starts[step] + size]
        shown = list(_shown(chunk, raters, votes_per_pair, start=starts[step], seed=seed))
        if saved is not None:
            held = store.votes_by_key(_key(i, r) for i, r, _ in shown).values()
            said |= {v.key: v.value["preference"] for v in held if v.kind == "comparison"}
        for rater in raters:
            asked = [i for i, r, _ in shown if r is rater and _key(i, r) not in said]
            preferences = rater.compare_all(asked)
            said |= {_key(i, rater): p for i, p in zip(asked, preferences, strict=True)}
        cast = [
            comparison_vote(i.key, r.name, said[_key(i, r)], key=_key(i, r), order_shown=order)
            for i, r, order in shown
        ]
        with store.batch():
            store.add_items(chunk)
            store.add_votes(cast)
        votes += len(cast)
        ties += sum(vote.value["preference"] == "tie" for vote in cast)
        metrics = {"feedback/votes": float(votes), "feedback/ties": ties / max(votes, 1)}
        yield Step(step + 1, len(starts), metrics)
        yield _collected(step + 1, votes, ties)
    yield Done(len(starts), {"votes": float(votes), "ties": ties / max(votes, 1)})


_FACTS = ("step", "votes", "ties")


def _collected(*facts: int) -> Checkpoint:
    return Checkpoint(facts[0], lambda: ({}, dict(zip(_FACTS, facts, strict=True))))


def _shown(
    items: Sequence[Item], raters: Sequence[Rater], votes_per_pair: int, *, start: int, seed: int
) -> Iterator[tuple[Item, Rater, Order]]:
    """Who sees which item, and in which order its sides; `start` is the number of the first item."""
    for k, item in enumerate(items, start):
        rng = np.random.default_rng((seed, 6, k))
        for i in rng.permutation(len(raters))[:votes_per_pair].tolist():
            yield item, raters[i], "ab" if rng.random() < 0.5 else "ba"


def _key(item: Item, rater: Rater) -> str:
    return f"{item.key}-{rater.name}"
