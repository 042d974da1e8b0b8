"""`plaudit feedback`: brings what people and judges said in and out of a store, and counts it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from plaudit.cli.words import Parser
from plaudit.records.errors import UserError
from plaudit.records.visible import visible

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore

FORMATS = (
    "preference, implicit, unpaired, stepwise, scores, rankings, items, edits, sft, messages, text,"
    " prompts, votes (the whole log), hh, openai, openai-axes, ultrafeedback, oasst-trees,"
    " oasst-messages, arena, arena-140k, arena-55k, label-studio or argilla"
)
STORE = Path("feedback.sqlite")
"""The store where neither --store nor --run names one."""


def main(argv: list[str]) -> int:
    """Imports, exports or counts; returns 0."""
    words = _parser().parse_args(argv)
    action: str = words.action
    if action == "import":
        return _import(words)
    return _export(words) if action == "export" else _stats(words)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("plaudit feedback", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|export|stats")
    where = Parser(add_help=False)
    place = where.add_mutually_exclusive_group()
    place.add_argument("--store", help=f"SQLite file or database URL (default: {STORE})")
    place.add_argument("--run", help="the store inside this run")

    say = "read what was said of answers, in our columns or another tool's format"
    into = actions.add_parser("import", parents=[where], help=say, description=say)
    into.add_argument("file", help="JSONL, JSON, CSV or TSV (also .gz), or Parquet")
    into.add_argument("--rater", help="who said it (default: the file's name, or its rater column)")
    into.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=YOURS",
        help="names of columns in your file: chosen=good rejected=bad",
    )
    into.add_argument("--format", metavar="NAME", help=f"{FORMATS}; else known by its columns")
    into.add_argument(
        "--config", metavar="FILE", help="Label Studio's labelling configuration, for its tasks"
    )

    say = "write feedback in the usual columns, the whole log, or another tool's format"
    out = actions.add_parser("export", parents=[where], help=say, description=say)
    out.add_argument(
        "file", help=".jsonl, .json, .csv (each also .gz) or .parquet; replaced if it exists"
    )
    out.add_argument(
        "--format", "--form", dest="format", default="preference", metavar="NAME", help=FORMATS
    )
    out.add_argument("--rater", help="only what this rater said")

    say = "count votes and measure agreement, side bias and pace"
    actions.add_parser("stats", parents=[where], help=say, description=say)
    return parser


def _store(words: argparse.Namespace) -> str | Path:
    """Which store is meant."""
    if words.run is not None:
        from plaudit.records.runs import RunFolder

        return RunFolder.open(words.run).path / STORE
    store: str | None = words.store
    return STORE if store is None else store


@contextlib.contextmanager
def _filled(where: str | Path) -> Iterator[FeedbackStore]:
    """The store; of one that was made for this, nothing is left where nothing was put into it."""
    from plaudit.feedback.database import database_url
    from plaudit.feedback.store import FeedbackStore

    url = database_url(where)
    file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    is_new = file is not None and not file.exists()
    store = FeedbackStore(where)
    try:
        yield store
    finally:
        is_empty = is_new and store.size() == (0, 0)
        store.close()
        if is_empty:
            for end in ("", "-wal", "-shm"):
                Path(f"{file}{end}").unlink(missing_ok=True)


def _import(words: argparse.Namespace) -> int:
    from plaudit.feedback.exchange import import_feedback

    columns = _pairs(words.columns)
    with _filled(_store(words)) as store:
        done = import_feedback(
            store,
            words.file,
            rater=words.rater,
            columns=columns,
            form=words.format,
            config=words.config,
        )
        said = (
            f"{words.file}: {_count(done.num_rows, 'row')} read;"
            f" {_count(done.num_items, 'item')} and {_count(done.num_votes, 'vote')}"
            f" are new in {store.name}"
        )
        print(visible(said))
    for note in done.notes:
        print(visible(f"  {note}"))
    return 0


def _export(words: argparse.Namespace) -> int:
    from plaudit.feedback.exchange import export_feedback
    from plaudit.feedback.store import FeedbackStore

    with FeedbackStore(_store(words), create=False) as store:
        done = export_feedback(store, words.file, form=words.format, rater=words.rater)
        written = f"{words.file}: {_count(done.num_rows, 'row')} written from {store.name}"
    for line in (written, *(f"  left out: {num} {why}" for why, num in done.left_out.items())):
        print(visible(line))
    return 0


def _stats(words: argparse.Namespace) -> int:
    from plaudit.feedback.stats import feedback_stats, render
    from plaudit.feedback.store import FeedbackStore

    with FeedbackStore(_store(words), create=False) as store:
        print(visible(store.name))
        for line in render(feedback_stats(store)):
            print(visible(line))
    return 0


def _pairs(words: list[str]) -> dict[str, str]:
    """{"chosen": "good"} of ["chosen=good"]."""
    pairs = {}
    for word in words:
        ours, equals, yours = word.partition("=")
        if not (ours and equals and yours):
            raise UserError(f"--columns takes names as chosen=good, not {word!r}")
        pairs[ours] = yours
    return pairs


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
