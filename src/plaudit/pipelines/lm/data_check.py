"""What `plaudit data check` says of a file: its kind and counts, and how a model would read it.

The first half needs no model, and loads no torch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError, nearest
from plaudit.records.formats import KIND_WORDS
from plaudit.records.rows import Row, Rows
from plaudit.records.turns import answer_text, canonical_messages

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec
    from plaudit.records.types import Trajectories

JOBS = {
    "preference": "dpo, simpo, orpo, reward",
    "unpaired": "kto",
    "messages": "sft",
    "prompt-completion": "sft",
    "text": "sft",
    "prompt": "grpo, rloo, reinforce_pp, ppo, online_dpo, best_of_n",
}
"""Jobs that learn from a kind of data."""

ORDER = ("preference", "unpaired", "labelled", "scored", "messages", "prompt-completion", "text",
         "prompt")  # fmt: skip
"""Kinds, the first that a file can be; as `sft` does, whole conversations before their last answers."""

SHOWN = 1600
"""Characters of a piece of the first row that are shown; of a longer one, its beginning and end."""


@dataclass(frozen=True)
class Excerpt:
    """A row as the model reads it: pieces of text, and which of them are learned."""

    pieces: tuple[tuple[str, bool], ...]


def checked(
    file: str,
    *,
    model: str | None,
    kind: str | None,
    columns: Mapping[str, str],
    template: str | None,
    max_length: int | None,
) -> Iterator[str | Excerpt]:
    """Lines about the file. UserError for what cannot be used."""
    if kind is not None and kind not in KIND_WORDS:
        known = ", ".join(KIND_WORDS)
        raise UserError(f"no kind of data {kind!r}{nearest(kind, KIND_WORDS)}: {known}")
    for name, value in (("--template", template), ("--max-length", max_length)):
        if model is None and value is not None:
            raise UserError(f"{name} is about a model's tokens: name one by --model")
    if max_length is not None and max_length < 2:
        raise UserError(f"--max-length is {max_length}, expected at least 2 tokens")
    rows, found = read_dataset(file, columns=columns, kinds=ORDER if kind is None else (kind,))
    yield f"{rows.source}: {_count(len(rows), 'row')} of {KIND_WORDS[found]}"
    yield from rows.notes
    learned = JOBS.get(found)
    yield f"Learned by: {learned or 'no job directly; plaudit feedback import takes them'}"
    yield from of_rows(rows, found)
    if model is not None:
        yield from of_tokens(rows, found, model=model, template=template, max_length=max_length)


# --- without a model -----------------------------------------------------------------------


def of_rows(rows: Rows, kind: str) -> Iterator[str]:
    """What can be counted without a tokenizer."""
    same = len(rows) - len({_written(row, kind) for row in rows})
    if kind not in ("messages", "text"):
        asked = Counter(_name(row) for row in rows)
        most = max(asked.values())
        yield f"Prompts: {len(asked):,} different, at most {_count(most, 'row')} each"
    if kind == "messages":
        own = [sum(turn["role"] == "assistant" for turn in row["messages"]) for row in rows]
        yield f"Turns of the assistant: {sum(own):,}, {min(own):,} to {max(own):,} in each row"
    if kind == "preference":
        yield from _of_pairs(rows)
    if kind == "unpaired":
        good = sum(bool(row["label"]) for row in rows)
        yield f"Called good: {_share(good, len(rows))}"
    if same:
        yield f"Repeated rows: {same:,}"
    empty = sum(not text.strip() for row in rows for text in _answers(row, kind))
    if empty:
        yield f"Empty answers: {_share(empty, sum(len(_answers(row, kind)) for row in rows))}"


def _of_pairs(rows: Rows) -> Iterator[str]:
    pairs = [(_name(r), answer_text(r["chosen"]), answer_text(r["rejected"])) for r in rows]
    differ = [(len(a), len(b)) for _, a, b in pairs if len(a) != len(b)]
    longer = sum(a > b for a, b in differ)
    if differ:
        yield f"The chosen answer is the longer one: {_share(longer, len(differ))} (in characters)"
    known = set(pairs)
    contrary = sum((name, b, a) in known for name, a, b in known if a < b)
    equal = sum(a == b for _, a, b in pairs)
    if contrary:
        yield f"Pairs that are decided both ways: {contrary:,}"
    if equal:
        yield f"Pairs of equal answers, which teach nothing: {equal:,}"
    if any("share" in row for row in rows):
        ties = sum(row.get("share") in (0.5, "0.5") for row in rows)
        yield f"Ties (share 0.5): {_share(ties, len(rows))}"
    if "margin" in rows[0]:
        margins = sorted(float(row["margin"]) for row in rows)
        yield f"Margins: {margins[0]:.3g} to {margins[-1]:.3g}"


def _answers(row: Row, kind: str) -> list[str]:
    names = {"preference": ("rejected",), "unpaired": ("completion",)}.get(kind, ())
    if kind == "messages":
        return [t["content"] for t in row["messages"] if t["role"] == "assistant"]
    if "completions" in row and kind in ("scored", "labelled"):
        return [answer_text(text) for text in row["completions"]]
    return [answer_text(row[name]) for name in names]


def _written(row: Row, kind: str) -> str:
    """What of a row makes it the same as another: its prompt and answers, and what was said of them."""
    names = ("chosen", "rejected", "completion", "completions", "label", "labels", "scores")
    if kind in ("messages", "text"):
        return json.dumps(row[kind], sort_keys=True)
    said = [] if kind == "prompt" else [row.get(name) for name in names]
    return _name(row) + json.dumps(said, sort_keys=True)


def _name(row: Row) -> str:
    return json.dumps(canonical_messages(row["prompt"]), sort_keys=True)


# --- as a model reads it -------------------------------------------------------------------


def of_tokens(
    rows: Rows, kind: str, *, model: str, template: str | None, max_length: int | None
) -> Iterator[str | Excerpt]:
    """Lengths, the template's verdicts, and the first row as the model reads it."""
    from plaudit.models.formats.load import read_folder
    from plaudit.pipelines.lm.data import compared, examples, labelled, said_of_long
    from plaudit.pipelines.rlhf.sources import prompts_of

    if kind not in JOBS:
        return
    codec = read_folder(model, template=template).codec
    yield f"Model: {model}, context {codec.context:,} tokens"
    yield from _of_template(codec, kind)
    if kind == "prompt":
        prompts = prompts_of(rows, codec, max_new_tokens=1)
        yield _lengths("Prompts", [len(prompt.ids) for prompt in prompts])
        yield "The first row, as the model reads it:"
        yield Excerpt(_pieces(codec, [(prompts[0].ids, False)]))
        return
    if kind == "preference":
        opinions, left_out = compared(rows, codec, max_length=max_length)
        batch, first = opinions.batch, [opinions.pairs.a[0], opinions.pairs.b[0]]
    elif kind == "unpaired":
        (batch, _, left_out), first = labelled(rows, codec, max_length=max_length), [0]
    else:
        (batch, left_out), first = examples(rows, kind, codec, max_length=max_length), [0]
    names = ("Chosen answers", "Rejected answers") if kind == "preference" else ("Answers",)
    for what, lengths in zip(("Prompts", *names), zip(*left_out.lengths, strict=True), strict=True):
        yield _lengths(what, lengths)
    yield _lengths("Rows", [left_out.tokens(i) for i in range(len(rows))])
    learned, there = int(batch.chosen.sum()), int(batch.there.sum())
    if learned < there:
        yield f"Learned: {_share(learned, there)} of the tokens behind the prompts"
    said = said_of_long(rows, left_out)
    yield f"Every row fits {left_out.what}, {left_out.limit:,} tokens" if said is None else said
    yield from _unclosed(codec, batch)
    for name, row in zip(("first row", "rejected answer to it"), first, strict=False):
        yield f"The {name}, as the model reads it:"
        yield Excerpt(_pieces(codec, _runs(batch, row)))


def _of_template(codec: TextCodec, kind: str) -> Iterator[str]:
    """What the template allows, tried on a conversation of two turns of the assistant."""
    from plaudit.models.conversations import verdict

    def token(i: int) -> str:
        return str(codec.tokenizer.convert_ids_to_tokens(i))

    if kind == "text":
        yield "Template: not used for plain texts"
        return
    if codec.template is None:
        yield f"Template: none, plain text; learned last is {token(codec.end_of_turn)}"
        return
    found = verdict(codec)
    yield f"Template: prefix-preserving: {f'no: {found.differs}' if found.differs else 'yes'}"
    ends = [i for i in found.ends if i in codec.stop_ids]
    where = "yes" if len(ends) == len(found.ends) else "only in the last turn"
    named = ", ".join(dict.fromkeys(map(token, ends)))
    yield f"Template: the token that ends a turn is learned: {where}, {named}"
    told = "generation marks" if found.is_marked else "prefix differences"
    only = "no: one turn of the assistant a row can be learned"
    yield f"Template: the assistant's turns are told by: {only if found.refused else told}"


def _unclosed(codec: TextCodec, batch: Trajectories) -> Iterator[str]:
    """Of a template whose generation prompt opens <think>: answers that do not close it."""
    if codec.opened:
        close = f"</{codec.opened}>"
        num = sum(close not in text for text in batch.texts)
        if num:
            yield (
                f"The generation prompt opens <{codec.opened}>, which is not closed in "
                f"{_share(num, len(batch))} of the answers"
            )


def _lengths(what: str, lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    middle, most = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9))
    return (
        f"{what}: {ordered[0]:,} to {ordered[-1]:,} tokens, median {middle:,}, "
        f"nine tenths at most {most:,}"
    )


def _runs(batch: Trajectories, row: int) -> Iterator[tuple[Sequence[int], bool]]:
    """A row's ids in runs that are learned or not, from its prompt on."""
    yield batch.prompts[int(batch.group[row])].ids, False
    there = batch.there[row]
    ids, chosen = batch.token[row][there].tolist(), batch.chosen[row][there].tolist()
    begin = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or chosen[place] != chosen[begin]:
            yield ids[begin:place], chosen[begin]
            begin = place


def _pieces(
    codec: TextCodec,
    runs: Iterator[tuple[Sequence[int], bool]] | Sequence[tuple[Sequence[int], bool]],
) -> tuple[tuple[str, bool], ...]:
    """Each run's text: what it adds to the text of those before it, as a piece decoded on its own may
    lose the space before it."""
    ids: list[int] = []
    written, pieces = "", []
    for run, learned in runs:
        ids += run
        whole = codec.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        pieces.append((_shortened(whole[len(written) :]), learned))
        written = whole
    return tuple(pieces)


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"


def _share(some: int, whole: int) -> str:
    return f"{some:,} of {whole:,} ({some / whole:.0%})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
