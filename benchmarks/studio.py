"""A studio under load: 200 annotators over 100,000 items and a million votes, then ten times the pace.

    python benchmarks/studio.py [--seconds 60] [--annotators 200] [--items 100000] [--votes 1000000]
        [--postgres URL] [--store FILE] [--only pace,tenfold,leaving,kills]

The studio is `plaudit studio` in a process of its own, asked over loopback by as many connections as
there are annotators, each with the page's own outbox and three offers in hand. Four parts: `pace`,
10 votes a minute each; `tenfold`, 100 a minute each; `leaving`, a fifth of the people goes away for
good in the middle with offers in hand, at leases of a few seconds; `kills`, the server is killed at
random moments under the tenfold load and started again. All of it takes at most five minutes of load.
Reported: percentiles of the time from sending to the answer, by the crowd's clock (which shares the
processor with the server) and by the server's own from the request's head to the answer's; resident
memory; votes lost and doubled; and what the disk takes for a bare fsync of 4 KiB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crowd import Server, Tally, crowd, served, works
from machine import description
from plaudit.feedback.entries import Item, NewVote, Segment, comparison_vote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.files import write_text

RESULTS = Path(__file__).parent / "results" / "studio.md"
PARTS = ("pace", "tenfold", "leaving", "kills")
MOST_SECONDS = 300
BATCH = 10_000
SHORT_LEASE = 10.0


def items(num: int) -> Iterator[Item]:
    for n in range(num):
        answers = tuple(Segment(f"answer {n}/{k}: " + "word " * 60, model="m") for k in range(2))
        yield Item(f"i{n}", f"question {n} " + "word " * 20, answers)


def votes(num: int, num_items: int) -> Iterator[NewVote]:
    draw = random.Random(7)
    for n in range(num):
        said = draw.choice(("a", "b", "tie"))
        key = f"before-{n}"
        yield comparison_vote(
            f"i{n % num_items}", f"rater-{n // num_items}", said, key=key, seconds=3
        )


def in_batches(rows: Iterator[Item] | Iterator[NewVote]) -> Iterator[list]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def filled(where: str, num_items: int, num_votes: int) -> None:
    """A store with so many items and votes, from before the studio was opened."""
    with FeedbackStore(where) as store:
        if store.size() == (num_items, num_votes):
            return
        for batch in in_batches(items(num_items)):
            store.add_items(batch)
        for batch in in_batches(votes(num_votes, num_items)):
            store.add_votes(batch)


def tokens(where: str, num: int, **settings: object) -> list[str]:
    """Tokens of so many annotators, who are added where they are new."""
    with FeedbackStore(where) as store:
        if settings:
            store.offers.configure(**settings)
        known = {one.name for one in store.people.annotators()}
        names = [f"annotator-{n}" for n in range(num)]
        for name in names:
            if name not in known:
                store.people.add(name)
        return [store.people.bearer(name) for name in names]


def percentiles(seconds: Sequence[float]) -> str:
    """Milliseconds of the 50th, 95th and 99th percentile."""
    if len(seconds) < 100:
        return "too few"
    cuts = statistics.quantiles(seconds, n=100)
    return " / ".join(f"{1000 * cuts[p - 1]:.1f}" for p in (50, 95, 99))


def report(tally: Tally, seconds: float) -> list[str]:
    """What a crowd saw, in lines of Markdown."""
    lines = [
        f"{len(tally.acknowledged)} votes acknowledged, {len(tally.acknowledged) / seconds:.1f} a second"
    ]
    for name, times in (("votes", tally.votes), ("offers", tally.offers)):
        ours, theirs = ([pair[side] for pair in times] for side in (0, 1))
        lines.append(f"{name}, ms at p50 / p95 / p99: {percentiles(ours)} by the crowd's clock, "
                     f"{percentiles(theirs)} by the server's ({len(times)} requests)")  # fmt: skip
    surplus = sum(status == "surplus" for status in tally.acknowledged.values())
    lines.append(f"surplus votes: {surplus} ({surplus / max(1, len(tally.acknowledged)):.2%})")
    if tally.idle:
        lines.append(f"told that nothing is open: {tally.idle} times")
    if tally.refused:
        lines.append(f"refused: {len(tally.refused)}, as {tally.refused[0]!r}")
    return lines


def pace(
    server: Server, people: list[str], per_minute: float, seconds: float, leaving: float = 0
) -> tuple[list[str], Tally]:
    """A crowd at one pace, and the server's memory before and after."""
    tally, annotators = crowd(
        server.port, people, per_minute=per_minute, leaving=leaving, seconds=seconds
    )
    before = server.memory()
    begin = time.monotonic()
    asyncio.run(works(annotators, seconds))
    lines = report(tally, time.monotonic() - begin)
    lines.append(f"resident memory: {before:.0f} MB before, {server.memory():.0f} MB after")
    return lines, tally


async def _killed(
    server: Server, annotators: list, seconds: float, num: int, where: str
) -> list[str]:
    """Kills at random moments; after each, that what was acknowledged is there."""
    draw, lost = random.Random(3), []
    work = asyncio.create_task(works(annotators, seconds))
    tally = annotators[0].tally
    seen = 0
    for _ in range(num):
        await asyncio.sleep(draw.uniform(0.3, 1.7) * seconds / num / 2)
        acknowledged = list(tally.acknowledged)
        server.kill()
        await asyncio.sleep(0.05)
        lost += await asyncio.to_thread(missing, where, acknowledged[seen:])
        seen = len(acknowledged)
        await asyncio.to_thread(server.start)
    await work
    return lost


def missing(where: str, keys: Sequence[str]) -> list[str]:
    """Those of the votes that the store does not hold."""
    with FeedbackStore(where) as store:
        found = store.votes_by_key(keys)
    return [key for key in keys if key not in found]


def kills(server: Server, people: list[str], where: str, seconds: float, num: int) -> list[str]:
    """Votes lost and doubled when the server is killed `num` times under load."""
    tally, annotators = crowd(server.port, people, per_minute=100)
    lost = asyncio.run(_killed(server, annotators, seconds, num, where))
    gone = missing(where, list(tally.cast))
    with FeedbackStore(where) as store:
        found = store.votes_by_key(tally.cast)
        offers = [vote.offer for vote in found.values() if vote.active]
    doubled = len(offers) - len(set(offers))
    return [
        f"{num} kills in {seconds:.0f} s; {len(tally.cast)} votes cast, "
        f"{len(tally.acknowledged)} acknowledged",
        f"acknowledged and lost: {len(lost)}; cast and lost once the clients were back: {len(gone)}; "
        f"doubled: {doubled}",
    ]


@contextmanager
def place(words: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Where the store is, and a folder for what the server says."""
    with tempfile.TemporaryDirectory(prefix="studio-") as folder:
        yield words.postgres or words.store or str(Path(folder) / "feedback.sqlite"), Path(folder)


def fsync_line(folder: Path) -> str:
    """What the disk takes to keep 4 KiB, without any database."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(300):
            file.write(b"x" * 4096)
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return f"bare fsync of 4 KiB, ms at p50 / p95 / p99: {percentiles(times)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--store")
    parser.add_argument("--postgres")
    parser.add_argument("--only", default=",".join(PARTS))
    words = parser.parse_args()
    parts = [part for part in PARTS if part in words.only.split(",")]
    if words.seconds * len(parts) > MOST_SECONDS:
        sys.exit(f"that is more than {MOST_SECONDS} s of load")
    said = [f"- {description()}"]
    with place(words) as (where, folder):
        begin = time.monotonic()
        filled(where, words.items, words.votes)
        said.append(f"- {fsync_line(folder)}")
        print(f"filled in {time.monotonic() - begin:.0f} s", said[-1], flush=True)
        overlap = -(-words.votes // words.items) + 1
        people = tokens(where, words.annotators, overlap=overlap)
        for part in parts:
            if part == "leaving":
                tokens(where, 0, lease_seconds=SHORT_LEASE)
            with served(where, folder / "log") as server:
                lines = run(part, server, people, where, words)
                server.stop()
            if part == "leaving":
                tokens(where, 0, lease_seconds=600.0)
            print(part, *lines, sep="\n  ", flush=True)
            said += ["", f"## {part}", "", *(f"- {line}" for line in lines)]
        errors = (folder / "log").read_text()
        if "Traceback" in errors:
            print(errors[-3000:])
    kind = "PostgreSQL" if words.postgres else "SQLite"
    head = (
        f"# A studio under load ({kind})\n\n{words.items:,} items, {words.votes:,} votes before, "
    )
    head += f"{words.annotators} annotators, {words.seconds:.0f} s a part.\n\n"
    target = RESULTS if not words.postgres else RESULTS.with_name("studio-postgres.md")
    if parts == list(PARTS):
        write_text(target, head + "\n".join(said) + "\n")


def run(
    part: str, server: Server, people: list[str], where: str, words: argparse.Namespace
) -> list[str]:
    """One part's lines."""
    if part == "kills":
        return kills(server, people, where, words.seconds, words.kills)
    slow = part in ("pace",)
    leaving = 0.2 if part == "leaving" else 0
    return pace(server, people, 10 if slow else 100, words.seconds, leaving)[0]


if __name__ == "__main__":
    main()
