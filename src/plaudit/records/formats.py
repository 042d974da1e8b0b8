"""The formats that others publish and export, each known by its whole shape and read into our columns.

A format says how it is known (`fits`), and for every kind of data it can give how a row of it is
read (`reads`); where it cannot give what is wanted, what it holds and what to do. A reader raises
UserError with the column; file and line are added here. Columns that a format does not use are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from plaudit.records import formats_annotation as tools
from plaudit.records import formats_chat as chat
from plaudit.records.columns import KINDS
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, Rows, brief, listed_names
from plaudit.records.turns import is_messages

KIND_WORDS = {
    "preference": "comparisons (prompt, chosen, rejected)",
    "unpaired": "labels (prompt, completion, label)",
    "scored": "scores (prompt, completions, scores)",
    "labelled": "labels (prompt, completions, labels)",
    "prompt-completion": "demonstrations (prompt, completion)",
    "prompt": "prompts (prompt)",
    "messages": "conversations (messages)",
    "text": "texts (text)",
}
"""What a kind of data is called in a sentence."""

_GIVE = {
    "preference": "give it as feedback.file, or to `plaudit feedback import`",
    "scored": "give it to `plaudit feedback import`, or give comparisons (its binarized form)",
    "prompt-completion": "give it as demonstrations",
}


@dataclass(frozen=True)
class Format:
    """A published format: its name, the columns it uses, how it is known and read."""

    name: str
    columns: tuple[str, ...]
    fits: Callable[[Row], bool]
    reads: Mapping[str, Callable[[Row], Row]] = field(default_factory=dict)
    otherwise: Callable[[Row], str] | None = None


def recognised(rows: Rows, kinds: Sequence[str]) -> Rows:
    """The rows with our columns: as they are where they have them, else read from their format.

    Raises UserError where two formats fit, or where the one that fits gives none of the `kinds`.
    """
    wanted = tuple(kinds) or tuple(KINDS)
    for kind in wanted:
        if all(name in rows[0] for name in KINDS[kind]):
            return _own_columns(rows, KINDS[kind])
    fitting = [form for form in FORMATS if form.fits(rows[0])]
    giving = [(form, kind) for form in fitting for kind in wanted if kind in form.reads]
    if len({form.name for form, _ in giving}) > 1:
        names = " and as ".join(dict.fromkeys(form.name for form, _ in giving))
        raise UserError(
            f"{rows.where(0)} can be read as {names}: rename the columns of one of them, such as "
            f"--columns other={giving[-1][0].columns[0]}"
        )
    if fitting and not giving:
        raise UserError(_not_wanted(rows, fitting[0], wanted))
    if not giving:
        return rows
    form, found = giving[0]
    return rows.having(
        (_read(rows, index, form, found) for index in range(len(rows))),
        note=f"{rows.source} is read as {form.name}",
    )


def _not_wanted(rows: Rows, form: Format, wanted: Sequence[str]) -> str:
    said = f"{rows.where(0)}: this is {form.name}"
    if form.otherwise is not None:
        return f"{said}, which is not read as it is: {form.otherwise(rows[0])}"
    holds = next(iter(form.reads))
    words = " or ".join(KIND_WORDS[kind] for kind in wanted)
    return (
        f"{said}, which holds {KIND_WORDS[holds].partition(' (')[0]}, not {words}; {_GIVE[holds]}"
    )


def _read(rows: Rows, index: int, form: Format, kind: str) -> Row:
    row = rows[index]
    try:
        made = form.reads[kind](row)
        for name in made.keys() & row.keys() - set(form.columns):
            if not _agrees(row[name], made[name]):
                raise UserError(
                    f"{name!r} is {brief(row[name])}, which {form.columns[0]!r} contradicts; "
                    f"rename one of them (--columns other={name})"
                )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise UserError(f"{rows.where(index)}: {error}") from None
        has = listed_names(name for name in form.columns if name in rows[0])
        raise UserError(
            f"{rows.where(index)} is not {form.name}, as {rows.unit} {rows.numbers[0]} is: "
            f"expected {has} of the same form"
        ) from None
    used = set() if kind == "own" else set(form.columns)
    return made | {name: v for name, v in row.items() if name not in used and name not in made}


def _agrees(own: Any, made: Any) -> bool:
    """Whether a column of our name says what the format beside it does (UltraChat's prompt)."""
    users = (
        [turn["content"] for turn in made if turn["role"] == "user"]
        if isinstance(made, list)
        else []
    )
    return own == made or own in users[:1]


def _own_columns(rows: Rows, names: Sequence[str]) -> Rows:
    """Rows that have our columns, with transcripts and ShareGPT's turns in them made messages."""
    first = rows[0]
    if "prompt" in names and all(chat.is_transcript(row.get("prompt")) for row in rows):
        form = Format(
            "HH-RLHF transcripts",
            tuple(names),
            _never,
            {"own": partial(chat.own_transcripts, names)},
        )
    elif any(is_messages(first[name], "from", "value") for name in names):
        form = Format(
            "ShareGPT's turns", tuple(names), _never, {"own": partial(chat.own_turns, names)}
        )
    else:
        return rows
    return rows.having(
        (_read(rows, index, form, "own") for index in range(len(rows))),
        note=f"{rows.source}: {' and '.join(names)} are read as {form.name}",
    )


def _never(row: Row) -> bool:
    return False


def _prompt_of(read: Callable[[Row], Row]) -> Callable[[Row], Row]:
    return lambda row: {"prompt": read(row)["prompt"]}


def _comparing(name: str, columns: str, fits: Callable[[Row], bool], read: Any) -> Format:
    return Format(
        name, tuple(columns.split()), fits, {"preference": read, "prompt": _prompt_of(read)}
    )


_ALPACA = "instruction input system history"

FORMATS: tuple[Format, ...] = (
    _comparing(
        "HH-RLHF transcripts",
        "chosen rejected",
        lambda row: (
            "prompt" not in row
            and chat.texts(row, "chosen", "rejected")
            and (chat.is_transcript(row["chosen"]) or chat.is_transcript(row["rejected"]))
        ),
        chat.hh,
    ),
    _comparing(
        "pairs of whole conversations",
        "chosen rejected",
        lambda row: (
            "prompt" not in row
            and is_messages(row.get("chosen"), "role")
            and is_messages(row.get("rejected"), "role")
        ),
        chat.conversations,
    ),
    _comparing(
        "ShareGPT comparisons",
        "conversations system chosen rejected",
        lambda row: chat.is_sharegpt(row) and chat.has_pair(row),
        chat.sharegpt_pair,
    ),
    _comparing(
        "OpenAI's format of preferences",
        "input preferred_output non_preferred_output",
        lambda row: (
            isinstance(row.get("input"), Mapping)
            and isinstance(row["input"].get("messages"), list)
            and isinstance(row.get("preferred_output"), list)
            and isinstance(row.get("non_preferred_output"), list)
        ),
        chat.openai_pair,
    ),
    _comparing(
        "Alpaca comparisons",
        f"{_ALPACA} chosen rejected",
        lambda row: chat.texts(row, "instruction", "chosen", "rejected"),
        chat.alpaca_pair,
    ),
    _comparing(
        "Label Studio's comparisons",
        f"prompt left right {tools.SELECTED} {tools.RATER}",
        lambda row: tools.SELECTED in row and chat.texts(row, "prompt", "left", "right"),
        tools.label_studio_pair,
    ),
    Format(
        "UltraFeedback (raw)",
        ("instruction", "completions"),
        chat.is_ultrafeedback,
        {"scored": chat.ultrafeedback, "prompt": lambda row: {"prompt": row["instruction"]}},
    ),
    Format(
        "Alpaca",
        (*_ALPACA.split(), "output"),
        lambda row: (
            chat.texts(row, "instruction")
            and (chat.texts(row, "output") or chat.texts(row, "input"))
            and not chat.texts(row, "chosen", "rejected")
        ),
        {"prompt-completion": chat.alpaca_example, "prompt": chat.alpaca_prompt_alone},
    ),
    Format(
        "ShareGPT conversations",
        ("conversations", "system"),
        lambda row: chat.is_sharegpt(row) and not chat.has_pair(row),
        {
            "prompt-completion": chat.sharegpt_example,
            "messages": chat.sharegpt_whole,
            "prompt": chat.sharegpt_prompt,
        },
    ),
    Format(
        "OpenAI's messages",
        ("messages",),
        lambda row: is_messages(row.get("messages"), "role"),
        {"prompt-completion": chat.messages_example, "prompt": chat.messages_prompt},
    ),
    *(Format(name, (), fits, {}, todo) for name, fits, todo in tools.NOT_READ),
)
