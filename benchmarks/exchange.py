"""Feedback out and in: 100,000 votes on 20,000 items, to a file in each format and back.

    python benchmarks/exchange.py [--votes N] [--formats NAME ...]

Each export and each import is a process of its own, so that its peak of memory is its own: the
table has the seconds without the start of Python, and the peak of resident memory. Beside it stands
the same with a tenth of the votes: memory that does not grow is the claim. Of the raw log the digest
of the store that was read must be that of the store that was written. The floor of an export is to
read every row of the tables once, the floor of an import to parse the file once; both are printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plaudit.feedback.entries import (
    Item,
    NewVote,
    Segment,
    comparison_vote,
    ranking_vote,
    score_vote,
)
from plaudit.feedback.exchange import export_feedback, import_feedback
from plaudit.feedback.store import FeedbackStore
from plaudit.records.files import write_text
from plaudit.records.slices import row_slices

RESULTS = Path(__file__).parent / "results" / "exchange.md"
FORMATS = ("votes", "preference", "arena", "label-studio", "scores", "oasst-messages")
WORDS = "some words of an answer that somebody reads before judging it "
VOTES_EACH = 5


def build(where: Path, num_votes: int) -> None:
    """Two answers of some 500 characters, five votes on each pair: comparisons, a score, a ranking."""
    with FeedbackStore(where) as store:
        for start in range(0, num_votes // VOTES_EACH, 2000):
            numbers = range(start, min(start + 2000, num_votes // VOTES_EACH))
            store.add_items(
                Item(
                    f"i{n}",
                    f"prompt {n} {WORDS * 4}",
                    (Segment(f"a {n} {WORDS * 8}", model="m1"), Segment(f"b {n} {WORDS * 8}")),
                    {"n": n},
                )
                for n in numbers
            )
            store.add_votes(vote for n in numbers for vote in votes(n))


def votes(n: int) -> list[NewVote]:
    said = ("a", "b", "tie", "both_bad", "a")
    pairs = [
        comparison_vote(
            f"i{n}",
            f"rater {(n + k) % 11}",
            said[(n + k) % 5],
            key=f"{n}/{k}",
            order_shown="ba",
            seconds=k + 0.5,
        )
        for k in range(3)
    ]
    score = score_vote(f"i{n}", "rater 0", n % 2, key=f"{n}/3", seconds=1)
    return [*pairs, score, ranking_vote(f"i{n}", "rater 1", [[1], [0]], key=f"{n}/4")]


def act(words: argparse.Namespace) -> dict[str, float | str]:
    """One export, import or floor, in this process."""
    begin = time.perf_counter()
    result: dict[str, float | str] = {}
    if words.act == "parse":
        for rows in row_slices(words.file):
            len(rows)
    else:
        with FeedbackStore(words.store) as store:
            if words.act == "read":
                with store.reading() as connection:
                    for table in ("items", "segments", "votes"):
                        for _ in connection.exec_driver_sql(f"SELECT * FROM {table}"):
                            pass
            elif words.act == "export":
                result["rows"] = export_feedback(store, words.file, form=words.form).num_rows
            elif words.act == "import":
                result["rows"] = import_feedback(store, words.file, form=words.form).num_votes
            else:
                result["digest"] = store.content_digest()
    return {"seconds": time.perf_counter() - begin, "peak": peak()} | result


def peak() -> float:
    """Most megabytes that this process had in memory; `getrusage` counts those of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(act_: str, form: str, store: Path, file: Path) -> dict[str, float | str]:
    words = ["--act", act_, "--form", form, "--store", store, "--file", file]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=True
    )
    found: dict[str, float | str] = json.loads(done.stdout)
    return found


def measure(folder: Path, num_votes: int, formats: tuple[str, ...]) -> list[str]:
    folder.mkdir()
    store = folder / "store.sqlite"
    build(store, num_votes)
    nothing = folder / "none"
    floor = run("read", "", store, nothing)
    lines = [
        f"| {num_votes:,} | all tables read once | {floor['seconds']:.1f} s | {floor['peak']:.0f} MB | | | |"
    ]
    for form in formats:
        file = folder / f"{form}.jsonl"
        back = folder / f"{form}.sqlite"
        out, taken = run("export", form, store, file), run("import", form, back, file)
        parsed = run("parse", form, store, file)
        if form == "votes":
            same = [run("digest", form, one, file)["digest"] for one in (store, back)]
            assert same[0] == same[1], "the log that was read is another one"
        lines.append(
            f"| {num_votes:,} | {form} | {out['seconds']:.1f} s | {out['peak']:.0f} MB | "
            f"{taken['seconds']:.1f} s | {taken['peak']:.0f} MB | {parsed['seconds']:.1f} s |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", type=int, default=100_000)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    for name in ("--act", "--form", "--store", "--file"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.act:
        print(json.dumps(act(words)))
        return
    from machine import description  # not above: the processes that are measured need no torch

    lines = [
        "# Feedback out and in",
        "",
        description(),
        "",
        "| votes | format | export | peak | import | peak | file parsed once |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for num in (words.votes // 10, words.votes):
            lines += measure(Path(name) / str(num), num, tuple(words.formats))
    print("\n".join(lines))
    write_text(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
