"""A run that waits for people: its pairs are in the store, and it goes on once there are enough votes.

The store is another process's to write meanwhile (the studio, an import, a program). The run looks
at it now and then, at the price of one number while nothing is new. Comparisons count: skips, flags,
words and scores do not, and a vote that was taken back counts no longer. Once it has gone on, the run
learns from the votes that stood at that moment, however often it is killed and however many more
arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plaudit.feedback.entries import Comparison, Item, Vote
from plaudit.feedback.readings import comparison_of
from plaudit.pipelines.rlhf.opinions import split_of
from plaudit.pipelines.rlhf.refusals import MIN_COMPARISONS
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.interrupt import Interrupt, Interrupted

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore

SECONDS_BETWEEN_LOOKS = 0.5
"""A person's next vote takes longer, and an idle look costs well under a millisecond."""


@dataclass(frozen=True)
class Tally:
    """How far the votes are: those that prefer one answer, by the split of their prompts.

    `votes` counts comparisons of every kind of answer, `items` the pairs that have one, and
    `elsewhere` comparisons of texts that this run did not draw.
    """

    votes: int = 0
    ties: int = 0
    train: int = 0
    held_out: int = 0
    items: int = 0
    elsewhere: int = 0

    def enough(self, *, wanted: int, num_items: int) -> bool:
        """Whether the run may go on: as many votes as are wanted, or one on every pair, and of each
        split what a reward model needs to be taught and judged.

        Comparisons from elsewhere are split by prompt, and counted, later.
        """
        if self.elsewhere:
            return True
        if self.train < MIN_COMPARISONS or self.held_out < 1:
            return False
        return self.train + self.held_out >= wanted or self.items >= num_items

    def sentence(self, *, wanted: int, num_items: int, where: str) -> str:
        """What is there and what is wanted."""
        there = self.train + self.held_out
        return (
            f"{num_items:,} pairs wait for people's votes in {where}: votes that prefer one answer "
            f"are {there:,} of {wanted:,} wanted ({self.train:,} on training prompts, of at least "
            f"{MIN_COMPARISONS}, and {self.held_out:,} on held-out prompts, of at least 1)"
        )

    def metrics(self, wanted: int) -> dict[str, float]:
        """As numbers to log."""
        there = float(self.train + self.held_out)
        ties = self.ties / max(self.votes, 1)
        return {"feedback/votes": there, "feedback/ties": ties, "feedback/wanted": float(wanted)}


def tally(comparisons: Iterable[Comparison]) -> Tally:
    """Counts of comparisons that stand; a pair on which people disagree evenly prefers neither."""
    votes = ties = elsewhere = 0
    said: dict[str, list[Comparison]] = {}
    for c in comparisons:
        votes += 1
        ties += c.preference == "tie"
        elsewhere += split_of(c) is None
        said.setdefault(c.item_key, []).append(c)
    num = {"train": 0, "held_out": 0}
    for of_one in said.values():
        balance = sum({"a": 1, "b": -1}.get(c.preference, 0) for c in of_one)
        split = split_of(of_one[0])
        if balance and split in num:
            num[split] += sum(c.chosen is not None for c in of_one)
    return Tally(votes, ties, num["train"], num["held_out"], len(said), elsewhere)


def wait_for_votes(
    store: FeedbackStore,
    items: Sequence[Item],
    *,
    wanted: int,
    patience: float | None,
    interrupt: Interrupt,
    say: Callable[[str], None],
    page: str,
    saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Iterator[Event]:
    """Put the pairs into the store and look until there are enough votes; `page` says how to vote.

    A step is a vote that prefers one answer. Raises Interrupted once a stop was asked for, or after
    `patience` seconds (None: never) without enough. `Done` holds the entry at which it went on.
    """
    store.add_items(items)
    wanted = min(wanted, len(items))
    started, last, told = time.monotonic(), -1, -1
    if saved is not None:
        told = int(saved[1]["step"])
    now, announced = Tally(), False
    while True:
        newest = store.size()[1]
        if newest != last:
            last, now = newest, tally(comparisons_as_of(store, newest))
            there = now.train + now.held_out
            if there > told:
                told = there
                yield Step(there, wanted, now.metrics(wanted))
                yield Checkpoint(there, lambda step=there: ({}, {"step": step}))  # type: ignore[misc]
        if now.enough(wanted=wanted, num_items=len(items)):
            yield Done(max(told, 0), {"votes": float(now.votes), "last_vote": float(last)})
            return
        waiting = now.sentence(wanted=wanted, num_items=len(items), where=store.name)
        out_of_patience = patience is not None and time.monotonic() - started >= patience
        if interrupt.requested or out_of_patience:
            raise Interrupted(waiting)
        if not announced:
            say(f"Waiting: {waiting}.")
            say(f"Vote on the page that this opens: {page}. The run goes on by itself.")
            announced = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def comparisons_as_of(store: FeedbackStore, last: int) -> list[Comparison]:
    """The comparisons that stood when `last` was the newest entry of the log."""
    log = [vote for vote in store.votes(active=False) if vote.id <= last]
    items = {item.key: item for item in store.items()}
    stood = standing(log)
    return [comparison_of(v, items[v.item_key]) for v in stood if v.kind == "comparison"]


def standing(log: Sequence[Vote]) -> list[Vote]:
    """The votes of a log that no later standing entry takes back; an undo can itself be undone."""
    gone: set[int] = set()
    stood = []
    for vote in reversed(log):
        if vote.id in gone:
            continue
        if vote.kind == "undo" and vote.undoes is not None:
            gone.add(vote.undoes)
        else:
            stood.append(vote)
    return stood[::-1]
