"""`plaudit data check`: what a file holds, and how a model would read it, before anything is run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from plaudit.cli.words import Parser
from plaudit.records.columns import parse_renames
from plaudit.records.visible import visible

if TYPE_CHECKING:
    from plaudit.pipelines.lm.data_check import Excerpt

MARKS = (("«", "»"), ("⟦", "⟧"), ("⦃", "⦄"))
"""What stands around what is learned; the first pair that the text does not hold itself."""


def main(argv: list[str]) -> int:
    """Says what the file holds; returns 0."""
    parser = Parser("plaudit data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="check")
    say = "kind, counts, lengths, the template's verdicts and the first row"
    check = actions.add_parser("check", help=say, description=say)
    check.add_argument("file", help="JSONL, JSON, CSV or TSV (also .gz), or Parquet")
    check.add_argument(
        "--model", help="count tokens and render the first row as this model reads it: smollm2"
    )
    check.add_argument("--kind", help="take it as this kind of data, such as preference or prompt")
    check.add_argument("--template", help="a chat template file, chatml, or none for plain text")
    check.add_argument(
        "--max-length", type=int, help="longest row in tokens (default: the model's context)"
    )
    check.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=YOURS",
        help="names of columns in your file: chosen=good rejected=bad",
    )
    words = parser.parse_args(argv)
    from plaudit.pipelines.lm.data_check import checked

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in checked(
        words.file,
        model=words.model,
        kind=words.kind,
        columns=parse_renames(words.columns),
        template=words.template,
        max_length=words.max_length,
    ):
        print(visible(line) if isinstance(line, str) else marked(line, colour=colour))
    return 0


def marked(excerpt: Excerpt, *, colour: bool) -> str:
    """The text, indented, with what is learned between marks, and green where there is colour."""
    whole = "".join(text for text, _ in excerpt.pieces)
    opening, closing = next((m for m in MARKS if not set(m) & set(whole)), MARKS[-1])
    on, off = ("\x1b[32m", "\x1b[0m") if colour else ("", "")
    said = "".join(
        f"{on}{opening}{visible(text)}{closing}{off}" if learned else visible(text)
        for text, learned in excerpt.pieces
    )
    which = f"(learned is what stands in {opening}{closing})\n" if opening != "«" else ""
    return which + "\n".join(f"  {line}" for line in said.split("\n"))
