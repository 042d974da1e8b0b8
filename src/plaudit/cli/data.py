"""`plaudit data check`: what a file holds, and how a model would read it, before anything is run."""

from __future__ import annotations

from plaudit.cli.words import Parser
from plaudit.records.columns import parse_renames
from plaudit.records.visible import visible


def main(argv: list[str]) -> int:
    """Says what the file holds; returns 0."""
    parser = Parser("plaudit data", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="check")
    say = "kind, counts, lengths, the template's verdicts and the first row"
    check = actions.add_parser("check", help=say, description=say)
    check.add_argument("file", help="JSONL, JSON, CSV or TSV (also .gz), or Parquet")
    check.add_argument(
        "--model", help="count tokens and render the first row as this model reads it"
    )
    check.add_argument("--kind", help="take it as this kind of data, such as preference or prompt")
    check.add_argument("--template", help="a chat template file, chatml, or none for plain text")
    check.add_argument("--max-length", type=int, help="longest row in tokens")
    check.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=YOURS",
        help="names of columns in your file: chosen=good rejected=bad",
    )
    words = parser.parse_args(argv)
    from plaudit.pipelines.lm.data_check import checked

    for line in checked(
        words.file,
        model=words.model,
        kind=words.kind,
        columns=parse_renames(words.columns),
        template=words.template,
        max_length=words.max_length,
    ):
        print(visible(line))
    return 0
