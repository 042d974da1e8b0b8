"""What one act at the studio's store costs, with 100,000 items and a million votes already there.

    python benchmarks/studio_store.py [--postgres URL] [--items N] [--votes N] [--people N]
                                      [--repeats R] [--threads T]

The votes are those of `people` annotators on offers, spread evenly over the items, as the store
itself would hold them; overlap is one more than the votes of an item, so that every item is still
open to those who have not answered it. Each act is done `repeats` times by people in turn, alone;
then `threads` threads draw and answer at once, each as fast as it can. Every draw and every answer
waits for the disk, so the bare time of writing and syncing 4 kB there is given beside.
`--postgres` names a server, without a database.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from machine import description
from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.offered import Offer, OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.tables import OfferRow
from plaudit.records.files import write_text
from store import database

RESULTS = Path(__file__).parent / "results" / "studio_store.md"
BATCH = 10_000


def items(num: int) -> Iterator[Item]:
    for n in range(num):
        answers = tuple(Segment(f"answer {n}/{k} " * 8, model="m") for k in range(2))
        yield Item(f"i{n}", f"prompt {n} " * 8, answers, {"n": n})


def build(store: FeedbackStore, num_items: int, num_votes: int, people: list[str]) -> None:
    """Items, people, and votes on offers with the ids that the store would have given them."""
    batch: list[Item] = []
    for item in items(num_items):
        batch.append(item)
        if len(batch) == BATCH:
            store.add_items(batch)
            batch = []
    store.add_items(batch)
    for name in people:
        store.people.add(name)
    rng = random.Random(1)
    turns = dict.fromkeys(range(len(people)), 0)
    for start in range(0, num_votes, BATCH):
        offers, votes = [], []
        for n in range(start, min(start + BATCH, num_votes)):
            number, lap = n % num_items, n // num_items
            who = (number * 7 + lap * 13) % len(people)
            turns[who] += 1
            shown = [0, 1] if rng.random() < 0.5 else [1, 0]
            offers.append({
                "id": n + 1, "key": f"o{n}", "item_id": number + 1, "annotator_id": who + 1,
                "turn": turns[who], "ask": "compare", "shown": shown, "purpose": "work",
                "policy": "uniform", "propensity": 1 / num_items, "eligible": num_items,
                "made": float(n), "expires": n + 600.0,
            })  # fmt: skip
            value = {"a": 0, "b": 1, "preference": rng.choice(("a", "b", "tie"))}
            votes.append({
                "id": n + 1, "key": f"v{n}", "item_id": number + 1, "rater": people[who],
                "kind": "comparison", "value": value, "shown": shown, "undoes": None,
                "seconds": rng.lognormvariate(2, 1), "visible_seconds": None, "time": float(n),
                "offer": n + 1,
            })  # fmt: skip
        with store.batch(), store.reading() as connection:
            connection.execute(insert(OfferRow), offers)
            store.append(votes)
    store.offers.configure(overlap=-(-num_votes // num_items) + 1)


def vote(offer: Offer, chance: random.Random) -> OfferVote:
    value = {"a": 0, "b": 1, "preference": chance.choice(("a", "b", "tie"))}
    return OfferVote(uuid.uuid4().hex, offer.key, "comparison", value, 3.0, 3.0)


def acts(store: FeedbackStore, people: list[str]) -> dict[str, Callable[[int], object]]:
    held: dict[str, list[Offer]] = {}
    chance = random.Random(2)

    def draw(num: int) -> Callable[[int], object]:
        def act(n: int) -> None:
            who = people[n % len(people)]
            held.setdefault(who, []).extend(store.offers.draw(who, num))

        return act

    def answer(n: int) -> None:
        who = people[n % len(people)]
        (done,) = store.offers.answer(who, [vote(held[who].pop(), chance)])
        assert done.status == "kept", done

    def each(act: Callable[[str], Any]) -> Callable[[int], object]:
        return lambda n: act(people[n % len(people)])

    return {
        "draw 1 offer": draw(1),
        "draw 3 offers": draw(3),
        "answer": answer,
        "what is held": each(store.offers.mine),
        "progress": each(store.offers.progress),
        "anything to do": each(store.offers.waiting),
        "undo the last vote": each(store.offers.undo_last),
    }


def line(name: str, times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"| {name} | " + " | ".join(f"{cuts[k] * 1000:,.2f}" for k in (49, 94, 98)) + " |"


def timed(act: Callable[[int], object], repeats: int) -> list[float]:
    for n in range(3):
        act(n)
    times = []
    for n in range(3, 3 + repeats):
        begin = time.perf_counter()
        act(n)
        times.append(time.perf_counter() - begin)
    return times


def synced(folder: Path, repeats: int) -> list[float]:
    """Seconds to write 4 kB at the end of a file and sync it."""
    with (folder / "synced").open("wb") as file:

        def act(_: int) -> None:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())

        return timed(act, repeats)


def at_once(store: FeedbackStore, people: list[str], threads: int, seconds: float) -> list[str]:
    """Threads that draw one and answer it, as fast as they can."""
    draws: list[float] = []
    answers: list[float] = []
    end = time.perf_counter() + seconds

    def run(k: int) -> None:
        chance, n = random.Random(k), k
        while (begin := time.perf_counter()) < end:
            who = people[n % len(people)]
            n += threads
            (offer,) = store.offers.draw(who, 1)
            between = time.perf_counter()
            store.offers.answer(who, [vote(offer, chance)])
            draws.append(between - begin)
            answers.append(time.perf_counter() - between)

    running = [threading.Thread(target=run, args=(k,)) for k in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    rate = len(answers) / seconds
    return [
        line(f"draw 1, {threads} threads at once, {rate:,.0f} votes a second", draws),
        line(f"answer, {threads} threads at once", answers),
    ]


def measure(where: str | Path, kind: str, options: argparse.Namespace) -> list[str]:
    people = [f"person {n}" for n in range(options.people)]
    with FeedbackStore(where) as store:
        begin = time.perf_counter()
        build(store, options.items, options.votes, people)
        built = time.perf_counter() - begin
        begin = time.perf_counter()
        store.offers.draw(people[0], 1)
        first = time.perf_counter() - begin
        lines = [
            f"{kind}: built in {built:,.0f} s; the first draw, which makes the pool, {first:,.1f} s",
            "",
            "| act | p50 ms | p95 ms | p99 ms |",
            "|---|---|---|---|",
        ]
        for name, act in acts(store, people).items():
            lines.append(line(name, timed(act, options.repeats)))
        lines += at_once(store, people, options.threads, options.seconds)
        for name, question in (
            ("people", store.quality.per_person),
            ("agreement", store.quality.agreement),
            ("a page of items", store.quality.per_item),
        ):
            begin = time.perf_counter()
            question()
            took = (time.perf_counter() - begin) * 1000
            lines.append(f"| quality: {name}, once | {took:,.0f} | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--postgres", help="URL of a server, without a database")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", help="where to put the file (default: a temporary folder)")
    options = parser.parse_args()
    lines = [f"{options.items:,} items, {options.votes:,} votes, {options.people} people.", ""]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        disk = line("write and sync 4 kB, nothing else", synced(Path(folder), options.repeats))
        found = measure(Path(folder) / "f.sqlite", "SQLite", options)
        lines += [*found, disk, ""]
    if options.postgres:
        with database(options.postgres) as where:
            lines += [*measure(where, "PostgreSQL", options), ""]
    text = "\n".join(["# One act at the studio's store", "", *lines, description(), ""])
    print(text)
    if (options.items, options.votes) == (100_000, 1_000_000):
        write_text(RESULTS, text)


if __name__ == "__main__":
    main()
