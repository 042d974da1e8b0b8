"""Questions to the feedback store as it grows: 2,000, 20,000 and 200,000 items, five votes on each.

    python benchmarks/store.py [--postgres URL] [--repeats R] [--only NUM_ITEMS]

Ten raters share the votes, four fifths comparisons and one fifth scores, half of them timed; one
in fifty is undone again. One rater has answered all items but the last twenty. The store is built
by its own `add_items` and `add_votes`, 10,000 at a time. Every question is asked `repeats` times on
an open store; the table has the median and the 95th percentile. The floor of a question is its
answer: the rows read by an index, which is what the smallest store shows. `plaudit feedback stats`
is the whole command, started anew, once. `--postgres` names a server, without a database.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import description
from plaudit.feedback.entries import Item, NewVote, Segment, comparison_vote, score_vote
from plaudit.feedback.stats import rater_stats
from plaudit.feedback.store import FeedbackStore
from plaudit.records.files import write_text

RESULTS = Path(__file__).parent / "results" / "store.md"
SIZES = (2_000, 20_000, 200_000)
BATCH = 10_000
RATERS = [f"rater-{n}" for n in range(10)]
BUSY = "rater-0"
OPEN = 20


def items(num: int) -> Iterator[Item]:
    for n in range(num):
        answers = tuple(Segment(f"answer {n}/{k} " * 8, model="m") for k in range(2))
        yield Item(f"i{n}", f"prompt {n} " * 8, answers, {"n": n})


def votes(num: int) -> Iterator[NewVote]:
    """Five votes on each item; the first rater votes on all but the last twenty."""
    draw = random.Random(7)
    for n in range(num):
        others = draw.sample(RATERS[1:], 5)
        for k, rater in enumerate(others if n >= num - OPEN else [BUSY, *others[:4]]):
            seconds = draw.lognormvariate(2, 1) if draw.random() < 0.5 else None
            key = f"i{n}/{k}"
            if k == 4:
                score = round(draw.random(), 2)
                yield score_vote(f"i{n}", rater, score, key=key, seconds=seconds)
                continue
            said = draw.choice(("a", "a", "b", "b", "tie", "both_bad"))
            order = draw.choice(("ab", "ba"))
            yield comparison_vote(f"i{n}", rater, said, key=key, order_shown=order, seconds=seconds)
            if draw.random() < 0.02 and rater != BUSY:
                yield NewVote(f"{key}/undo", f"i{n}", rater, "undo", {}, undoes=key)


def build(store: FeedbackStore, num: int) -> float:
    """Fills an empty store; the seconds that it took."""
    begin = time.perf_counter()
    for make, add in ((items, store.add_items), (votes, store.add_votes)):
        batch = []
        for entry in make(num):
            batch.append(entry)
            if len(batch) == BATCH:
                add(batch)
                batch = []
        add(batch)
    return time.perf_counter() - begin


def questions(store: FeedbackStore) -> dict[str, Callable[[], object]]:
    num_items, num_votes = store.size()
    middle = num_votes // 2
    fresh = iter(range(1_000_000))

    def vote() -> None:
        n = next(fresh)
        store.add_comparison(f"i{n * 37 % num_items}", "somebody", "a", key=f"new/{n}")

    return {
        "next 10 open items, all but 20 answered": lambda: store.open_items(BUSY, limit=10),
        "next 10 open items, none answered": lambda: store.open_items("nobody", limit=10),
        "stats of one rater": lambda: rater_stats(store, BUSY),
        "100 entries since an entry": lambda: store.votes(active=False, after=middle, limit=100),
        "100 comparisons of one rater since an entry": lambda: store.comparisons(
            rater=BUSY, after=middle, limit=100
        ),
        "add one vote": vote,
        "undo a rater's last vote": lambda: store.undo(rater=BUSY),
    }


def seconds_of(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def measure(where: str, kind: str, num: int, repeats: int) -> list[str]:
    with FeedbackStore(where) as store:
        built = build(store, num)
        num_votes = store.size()[1]
        head = f"| {kind} | {num:,} | {num_votes:,} |"
        lines = [f"{head} build it, once | {built:,.1f} s | |"]
        for name, call in questions(store).items():
            times = seconds_of(call, repeats)
            p95 = statistics.quantiles(times, n=20)[-1]
            lines.append(
                f"{head} {name} | {1e3 * statistics.median(times):.2f} ms | {1e3 * p95:.2f} ms |"
            )
            print(lines[-1], flush=True)
        begin = time.perf_counter()
        num_read = len(store.comparisons())
        took = time.perf_counter() - begin
        lines.append(f"{head} all {num_read:,} comparisons, once | {took:.2f} s | |")
    begin = time.perf_counter()
    command = [Path(sys.executable).with_name("plaudit"), "feedback", "stats", "--store", where]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - begin
    lines.append(f"{head} `plaudit feedback stats`, once | {took:.2f} s | |")
    print("\n".join(lines[-2:]), flush=True)
    return lines


@contextmanager
def database(server: str) -> Iterator[str]:
    """URL of an empty database of the server, dropped afterwards."""
    import psycopg

    name = f"plaudit_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{server}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postgres", help="a server, as postgresql://user@host:port")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--only", type=int, choices=SIZES)
    parser.add_argument("--note", default="", help="a sentence for the file of results")
    words = parser.parse_args()
    sizes = SIZES if words.only is None else (words.only,)
    head = (
        "# Questions to the feedback store\n\n"
        f"{description()}. {words.note}\n\n"
        f"Median and 95th percentile of {words.repeats} times, by `benchmarks/store.py`.\n\n"
        "| store | items | entries | question | median | 95th percentile |\n"
        "|---|---:|---:|---|---:|---:|\n"
    )
    lines = []
    for num in sizes:
        with tempfile.TemporaryDirectory() as folder:
            lines += measure(f"{folder}/feedback.sqlite", "SQLite", num, words.repeats)
        if words.postgres:
            with database(words.postgres.rstrip("/")) as url:
                lines += measure(url, "PostgreSQL", num, words.repeats)
        if words.only is None:
            write_text(RESULTS, head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
