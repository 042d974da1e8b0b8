"""Whole conversations and plain texts as what is read and what of it is learned.

    token    prompt … | assistant's turn <end> | user's turn, opening | assistant's turn <end>
    chosen            |  1  1  1  1  1     1   |  0   0   0    0      |  1  1  1  1  1    1

Learned are the assistant's turns with the token that ends each, and nothing else. Where they lie is
told by the template's own generation marks, or by prefixes: the rendering of the conversation up to
a turn, with the opening of the assistant's next one, must be how the whole rendering begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.models.answers import Given
from plaudit.models.text import TextCodec, render
from plaudit.records.errors import UserError
from plaudit.records.turns import canonical_messages
from plaudit.records.types import Message, Prompt

GENERATION = "{%- generation", "{% generation"
"""How a template marks what the assistant says."""


def marks_turns(codec: TextCodec) -> bool:
    """Whether the template says itself which tokens are the assistant's."""
    return codec.template is not None and any(mark in codec.template for mark in GENERATION)


def learned_turns(codec: TextCodec, messages: Sequence[Message]) -> tuple[Prompt, Given]:
    """The messages before the assistant's first turn, and what follows with its turns chosen.

    Raises UserError where no turn is the assistant's, where the first is, and where the template
    renders earlier turns differently once later ones are there.
    """
    turns = canonical_messages(messages)
    own = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not own:
        raise UserError("no turn is the assistant's, so there is nothing to learn")
    if own[0] == 0:
        raise UserError("the first turn is the assistant's: something must come before it")
    prompt = codec.prompt(turns[: own[0]])
    if own == [len(turns) - 1]:
        content = turns[-1]["content"]
        codec.require_closed(prompt, content)
        return prompt, Given(codec.completion_ids(prompt, content))
    if codec.template is None:
        raise UserError(
            "a conversation of several messages needs a chat template, but template='none' was "
            "asked for"
        )
    turns = turns[: own[-1] + 1]  # what is said after its last turn teaches nothing
    if marks_turns(codec):
        return _by_marks(codec, prompt, turns)
    return _by_prefixes(codec, prompt, turns, own)


def plain_text(codec: TextCodec, text: str) -> tuple[Prompt, Given]:
    """A text without turns: its first token is the prompt, and all others are learned, the token
    that ends a text behind them."""
    ids = codec.start_ids(text)
    if len(ids) < 2:
        raise UserError("the text is one token long, so there is nothing to learn")
    rest = (*ids[1:], codec.end_of_turn)
    return Prompt(codec.decode(ids[:1]), tuple(ids[:1])), Given(rest)


def _by_marks(codec: TextCodec, prompt: Prompt, turns: Sequence[Message]) -> tuple[Prompt, Given]:
    """By the template's generation marks."""
    found: Any = codec.tokenizer.apply_chat_template(
        list(turns),
        chat_template=codec.template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, marks = list(found["input_ids"]), list(found["assistant_masks"])
    start = list(prompt.ids)
    if ids[: len(start)] != start:
        raise _differs(1)
    rest, chosen = ids[len(start) :], [bool(m) for m in marks[len(start) :]]
    while rest and not chosen[-1]:  # what the template writes after the last turn
        rest, chosen = rest[:-1], chosen[:-1]
    ends = [i for i in range(len(rest)) if chosen[i] and (i + 1 == len(rest) or not chosen[i + 1])]
    for i in ends:
        after = i + 1
        if rest[i] not in codec.stop_ids and after < len(rest) and rest[after] in codec.stop_ids:
            chosen[after] = True  # marks that leave out the end would teach it never to stop
    if rest and rest[-1] not in codec.stop_ids:
        rest, chosen = [*rest, codec.end_of_turn], [*chosen, True]
    if not any(chosen):
        raise UserError("the template's generation marks mark nothing: give another by --template")
    return prompt, Given(tuple(rest), tuple(chosen))


def _by_prefixes(
    codec: TextCodec, prompt: Prompt, turns: Sequence[Message], own: Sequence[int]
) -> tuple[Prompt, Given]:
    """By rendering the conversation up to each of the assistant's turns, and through it."""
    whole = _rendered(codec, turns, opened=False)
    if not whole.endswith(codec.tail):
        raise _differs(len(turns))
    whole = whole[: len(whole) - len(codec.tail)] + codec.lead
    pieces: list[tuple[str, bool]] = []
    at = 0
    for number, i in enumerate(own, start=1):
        before = _rendered(codec, turns[:i], opened=True)
        through = _rendered(codec, turns[: i + 1], opened=False)
        kept = through.endswith(codec.tail)
        said = through[: len(through) - len(codec.tail)] + codec.lead if kept else ""
        if not (kept and whole.startswith(before) and whole.startswith(said) and len(before) >= at):
            raise _differs(number)
        if number > 1:
            pieces.append((whole[at : len(before)], False))
        pieces.append((whole[len(before) : len(said)], True))
        at = len(said)
    ids, chosen = _ids(codec, _rendered(codec, turns[: own[0]], opened=True), pieces)
    start = list(prompt.ids)
    if ids[: len(start)] != start:
        raise _differs(1)
    return prompt, Given(tuple(ids[len(start) :]), tuple(chosen[len(start) :]))


def _ids(
    codec: TextCodec, before: str, pieces: Sequence[tuple[str, bool]]
) -> tuple[list[int], list[bool]]:
    """Token ids of the prompt and the pieces behind it, and which belong to pieces that are
    learned; the token that ends a turn belongs to it.

    The text is encoded at once, and tokens are told apart by where they lie in it; the end of a
    turn, which is written between the pieces, is put behind the last.
    """
    text = before + "".join(piece for piece, _ in pieces)
    found = codec.tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    spans, at = [], len(before)
    for piece, learned in pieces:
        if learned:
            spans.append((at, at + len(piece)))
        at += len(piece)
    ids = list(found["input_ids"])
    chosen = [
        any(begin >= low and end <= high and end > begin for low, high in spans)
        for begin, end in found["offset_mapping"]
    ]
    for place in range(len(ids) - 1):
        if chosen[place] and not chosen[place + 1] and ids[place + 1] == codec.end_of_turn:
            chosen[place + 1] = True
    return [*ids, codec.end_of_turn], [*chosen, True]


def _rendered(codec: TextCodec, turns: Sequence[Message], *, opened: bool) -> str:
    assert codec.template is not None
    return render(codec.tokenizer, codec.template, list(turns), generation_prompt=opened)


def _differs(number: int) -> UserError:
    return UserError(
        "the chat template writes earlier turns differently once later ones are there (at the "
        f"assistant's turn {number}), so the conversation cannot be learned as it would be met: "
        "give one turn of the assistant a row, or another template by --template"
    )
