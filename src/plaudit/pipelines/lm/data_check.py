"""What `plaudit data check` says of a file: its kind and counts, and how a model would read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError, nearest
from plaudit.records.formats import KIND_WORDS
from plaudit.records.rows import Row, Rows
from plaudit.records.turns import answer_text, canonical_messages

if TYPE_CHECKING:
    import torch

    from plaudit.models.text import TextCodec
    from plaudit.records.types import Trajectories

JOBS = {
    "preference": "dpo, reward, simpo, orpo",
    "unpaired": "kto",
    "prompt-completion": "sft",
    "messages": "sft",
    "text": "sft",
    "prompt": "grpo, rloo, ppo, online_dpo",
}
"""Jobs that learn from a kind of data."""

OPEN, CLOSE = "«", "»"
"""Around what is learned, in the first row as the model reads it."""


def checked(
    file: str,
    *,
    model: str | None,
    kind: str | None,
    columns: Mapping[str, str],
    template: str | None,
    max_length: int | None,
) -> Iterator[str]:
    """Lines about the file. UserError for what cannot be used."""
    known = tuple(KIND_WORDS)
    if kind is not None and kind not in known:
        raise UserError(f"no kind of data {kind!r}{nearest(kind, known)}: {', '.join(known)}")
    rows, found = read_dataset(file, columns=columns, kinds=() if kind is None else (kind,))
    yield f"{rows.source}: {len(rows):,} rows of {KIND_WORDS[found]}"
    if found in JOBS:
        yield f"Learned by: {JOBS[found]}"
    yield from rows.notes
    yield from of_rows(rows, found)
    if model is not None:
        yield from of_tokens(rows, found, model=model, template=template, max_length=max_length)


def of_rows(rows: Rows, kind: str) -> Iterator[str]:
    """What can be counted without a tokenizer."""
    if kind in ("messages", "text"):
        same = len(rows) - len({json.dumps(row[kind], sort_keys=True) for row in rows})
        if same:
            yield f"Repeated rows: {same:,}"
        return
    asked = Counter(_name(row) for row in rows)
    most = max(asked.values())
    yield f"Different prompts: {len(asked):,}; at most {most:,} {'row' if most == 1 else 'rows'} each"
    if kind == "preference":
        yield from _of_pairs(rows)
    if kind == "unpaired":
        good = sum(bool(row["label"]) for row in rows)
        yield f"Called good: {good:,} of {len(rows):,} ({good / len(rows):.0%})"
    if kind in ("unpaired", "prompt-completion"):
        empty = sum(not answer_text(row["completion"]).strip() for row in rows)
        if empty:
            yield f"Empty answers: {empty:,}"


def _of_pairs(rows: Rows) -> Iterator[str]:
    pairs = [(_name(r), answer_text(r["chosen"]), answer_text(r["rejected"])) for r in rows]
    equal = sum(a == b for _, a, b in pairs)
    longer = sum(len(a) > len(b) for _, a, b in pairs)
    differ = max(len(pairs) - sum(len(a) == len(b) for _, a, b in pairs), 1)
    counts = Counter(pairs)
    contrary = sum((name, b, a) in counts for name, a, b in counts if a < b)
    yield f"The chosen answer is the longer one in {longer / differ:.0%} of the pairs (characters)"
    for what, number in (
        ("Pairs of equal answers, which teach nothing", equal),
        ("Pairs decided both ways", contrary),
        ("Repeated rows", len(pairs) - len(counts)),
        ("Empty chosen answers", sum(not a.strip() for _, a, _ in pairs)),
    ):
        if number:
            yield f"{what}: {number:,}"
    if "margin" in rows[0]:
        margins = sorted(float(row["margin"]) for row in rows)
        yield f"Margins: {margins[0]:.3g} to {margins[-1]:.3g}"


def of_tokens(
    rows: Rows, kind: str, *, model: str, template: str | None, max_length: int | None
) -> Iterator[str]:
    """Lengths, the template's verdicts, and the first row as the model reads it."""
    from plaudit.models.conversations import marks_turns
    from plaudit.models.formats.load import read_folder
    from plaudit.pipelines.lm.data import compared, examples, labelled, said_of_long
    from plaudit.pipelines.rlhf.sources import prompts_of

    codec = read_folder(model, template=template).codec
    yield f"Model: {model}, context {codec.context:,} tokens"
    yield from _of_template(codec, marked=marks_turns(codec))
    left_out: list[int] = []
    if kind == "prompt":
        prompts = prompts_of(rows, codec, max_new_tokens=1)
        yield _lengths("Prompts", [len(prompt.ids) for prompt in prompts])
        yield "The first row, as the model reads it:"
        yield from _indented(codec.tokenizer.decode(prompts[0].ids))
        return
    if kind == "preference":
        opinions, left_out = compared(rows, codec, max_length=max_length)
        batch = opinions.batch
    elif kind == "unpaired":
        batch, _, left_out = labelled(rows, codec, max_length=max_length)
    elif kind in ("messages", "prompt-completion", "text"):
        batch, left_out = examples(rows, kind, codec, max_length=max_length)
    else:
        yield f"No job learns from {KIND_WORDS[kind]} directly: plaudit feedback import takes them"
        return
    yield _lengths("Prompts", [len(prompt.ids) for prompt in batch.prompts])
    yield _lengths("Answers", batch.there.sum(1).tolist())
    learned = batch.chosen.sum()
    if int(learned) < int(batch.there.sum()):
        yield f"Learned: {int(learned):,} of {int(batch.there.sum()):,} tokens behind the prompts"
    said = said_of_long(rows, left_out)
    yield "All rows fit" if said is None else said
    yield f"The first row, as the model reads it; learned is what stands in {OPEN}{CLOSE}:"
    yield from _indented(_marked(codec, batch, 0))


def _of_template(codec: TextCodec, *, marked: bool) -> Iterator[str]:
    if codec.template is None:
        yield "Template: none, plain text; an answer ends with " + _token(codec, codec.end_of_turn)
        return
    try:
        codec.completion_ids("Hi", "Ho")
        begins = "yes"
    except UserError as error:
        begins = f"no ({error})"
    yield f"Template: a prompt is how its answered form begins: {begins}"
    yield f"Template: the token that ends a turn is learned: yes, {_token(codec, codec.end_of_turn)}"
    how = "its own generation marks" if marked else "prefixes, compared row by row"
    yield f"Template: the assistant's turns are told by {how}"


def _token(codec: TextCodec, token: int) -> str:
    return str(codec.tokenizer.convert_ids_to_tokens(token))


def _lengths(what: str, lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    middle, most = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.9))
    return (
        f"{what}: {ordered[0]:,} to {ordered[-1]:,} tokens, median {middle:,}, "
        f"nine tenths at most {most:,}"
    )


def _marked(codec: TextCodec, batch: Trajectories, row: int) -> str:
    """A row's text with what is learned between marks."""
    text: str = codec.tokenizer.decode(batch.prompts[int(batch.group[row])].ids)
    ids: torch.Tensor = batch.token[row][batch.there[row]]
    chosen = batch.chosen[row][batch.there[row]].tolist()
    begin = 0
    for place in range(1, len(chosen) + 1):
        if place == len(chosen) or chosen[place] != chosen[begin]:
            piece = codec.tokenizer.decode(ids[begin:place].tolist())
            text += f"{OPEN}{piece}{CLOSE}" if chosen[begin] else piece
            begin = place
    return text


def _indented(text: str) -> Iterator[str]:
    yield from (f"  {line}" for line in text.splitlines())


def _name(row: Row) -> str:
    return json.dumps(canonical_messages(row["prompt"]), sort_keys=True)
