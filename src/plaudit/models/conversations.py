"""Whole conversations and plain texts as what is read and what of it is learned.

    token    prompt … | assistant's turn <end> | user's turn, opening | assistant's turn <end>
    chosen            |  1  1  1  1  1     1   |  0   0   0    0      |  1  1  1  1  1    1

Learned are the assistant's turns with the token that ends each, and nothing else. Where they lie is
told by the template's own generation marks, or by prefixes: the rendering of the conversation up to
a turn, with the opening of the assistant's next one, must be how the whole rendering begins. The ids
are those of the whole rendering; only where one of its tokens would span the seam between an opening
and a turn is each piece encoded on its own, since a sampler meets the opening's ids as they are.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from plaudit.models.answers import Given, turns
from plaudit.models.text import TextCodec, TurnsPrompt, render
from plaudit.records.errors import UserError
from plaudit.records.turns import canonical_messages
from plaudit.records.types import Message, Prompt

_MARK = re.compile(r"\{%[-+]?\s*generation\b")

_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "Well?"},
    {"role": "assistant", "content": "So"},
)
"""A conversation that every template which takes several turns takes."""


def marks_turns(codec: TextCodec) -> bool:
    """Whether the template says itself what the assistant's words are ({% generation %})."""
    return codec.template is not None and _MARK.search(codec.template) is not None


def learned_turns(codec: TextCodec, messages: Sequence[Message]) -> tuple[TurnsPrompt, Given]:
    """The messages before the assistant's first turn, and what follows with its turns chosen.

    A turn of weight 0 (OpenAI's field) is read and not learned. What is said after the last turn
    that is learned is left out. Raises UserError where nothing is to be learned, where nothing stands
    before it, where a turn holds a stop token, and where the template renders earlier turns
    differently once later ones are there.
    """
    whole = canonical_messages(messages)
    own = own_turns(whole)
    if not own:
        raise UserError("no turn is the assistant's to learn: expected one of the role assistant")
    if own[0] == 0:
        raise UserError("the first turn is the assistant's: something must come before it")
    whole = whole[: own[-1] + 1]
    prompt = codec.prompt(whole[: own[0]])
    if len(own) == 1:
        content = whole[-1]["content"]
        codec.require_closed(prompt, content)
        return prompt, Given(codec.completion_ids(prompt, content))
    if marks_turns(codec):
        return prompt, _by_marks(codec, prompt, whole, own)
    return prompt, _by_prefixes(codec, prompt, whole, own)


def own_turns(messages: Sequence[Message]) -> list[int]:
    """Places of the turns that are learned: the assistant's, but for those of weight 0."""
    own = []
    for i, turn in enumerate(messages):
        weight: Any = turn.get("weight", 1)
        if weight not in (0, 1):
            raise UserError(f"message {i + 1}: 'weight' is {weight!r}, expected 0 or 1")
        if turn["role"] == "assistant" and weight:
            own.append(i)
    return own


def plain_text(codec: TextCodec, text: str) -> tuple[Prompt, Given]:
    """A text without turns: its first token (the BOS of a tokenizer that has one) is the prompt; all
    others are learned, the tokenizer's end of text (EOS) behind them unless it is there already."""
    ids = codec.start_ids(text)
    own = codec.tokenizer.eos_token_id
    end = codec.end_of_turn if own is None else int(own)
    if ids[-1:] != [end]:
        ids.append(end)
    if len(ids) < 2:
        raise UserError("the text is empty, so there is nothing to learn")
    return Prompt(codec.decode(ids[:1]), tuple(ids[:1])), Given(tuple(ids[1:]))


@dataclass(frozen=True)
class Verdict:
    """What a codec's template allows, found on a conversation of two turns of the assistant.

    `differs` is why earlier turns do not stay as they were ("" where they do); `refused` is why only
    one turn of the assistant can be learned in a row ("" where all can); `ends` are the tokens that
    are learned last in each of its turns.
    """

    is_marked: bool
    differs: str
    refused: str
    ends: tuple[int, ...]


def verdict(codec: TextCodec) -> Verdict:
    """Tries the template on two turns of the assistant, or on one where that cannot be."""
    own = (1, 3)
    differs = refused = ""
    try:
        _by_prefixes(codec, codec.prompt(_PROBE[:1]), _PROBE, own)
    except UserError as error:
        differs = str(error)
    closed: Message = {"role": "assistant", "content": f"</{codec.opened}>Ho"}
    alone = (_PROBE[0], closed if codec.opened else _PROBE[1])
    try:
        _, given = learned_turns(codec, _PROBE)
    except UserError as error:
        refused = str(error)
        _, given = learned_turns(codec, alone)
    chosen = given.chosen or (True,) * len(given.ids)
    runs = turns([True] * len(chosen), chosen)
    return Verdict(
        is_marked=marks_turns(codec),
        differs=differs,
        refused=refused,
        ends=tuple(given.ids[end - 1] for _, end in runs),
    )


# --- by the template's marks ---------------------------------------------------------------


def _by_marks(
    codec: TextCodec, prompt: TurnsPrompt, whole: Sequence[Message], own: Sequence[int]
) -> Given:
    """By the template's generation marks, each turn closed by the token that ends it."""
    _rendered(codec, whole, opened=False)  # refuses in a sentence what the template refuses
    asked = _rendered(codec, prompt.messages, opened=False)
    opening = prompt.rendered[len(asked) :] if prompt.rendered.startswith(asked) else ""
    head = codec.tokenizer(opening, add_special_tokens=False, verbose=False)["input_ids"]
    found: Any = codec.tokenizer.apply_chat_template(
        list(whole),
        chat_template=codec.template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    start = len(prompt.ids)
    if tuple(found["input_ids"][:start]) != prompt.ids:
        raise _differs(own[0])
    ids = list(found["input_ids"][start:])
    runs = turns([True] * len(ids), map(bool, found["assistant_masks"][start:]))
    said = [i for i in range(own[0], len(whole)) if whole[i]["role"] == "assistant"]
    if len(runs) != len(said):
        raise UserError(
            f"the chat template's generation marks mark {len(runs)} turns of the assistant, but it "
            f"has {len(said)} from message {own[0] + 1} on: give another by --template"
        )
    chosen, end = [False] * len(ids), 0
    for i, (begin, marked) in zip(said, runs, strict=True):
        if i not in own:
            continue
        end = _closing(codec, ids, begin, marked, i)
        begin = _opened(ids, begin, end, head)
        chosen[begin:end] = [True] * (end - begin)
        _require_whole(whole[i]["content"], codec.tokenizer.decode(ids[begin:end]), i)
    if ids[end - 1] in codec.stop_ids:
        return Given(tuple(ids[:end]), tuple(chosen[:end]))
    return Given((*ids[:end], codec.end_of_turn), (*chosen[:end], True))


def _opened(ids: Sequence[int], begin: int, end: int, head: Sequence[int]) -> int:
    """Where a marked turn begins behind the opening that the generation prompt would have written,
    which marks may hold: nobody would draw that."""
    places = range(begin + 1, min(begin + len(head), end) + 1)
    return next((at for at in places if ids[max(at - len(head), 0) : at] == head), begin)


def _closing(codec: TextCodec, ids: Sequence[int], begin: int, end: int, i: int) -> int:
    """Where a marked turn [begin, end) ends with its stop token: marks may leave that out, which
    would never teach to stop, or hold what the template writes behind it, which nobody would draw."""
    stop = next((at for at in range(begin, end) if ids[at] in codec.stop_ids), None)
    if stop is not None:
        if codec.tokenizer.decode(ids[stop + 1 : end], skip_special_tokens=True).strip():
            raise _holds_stop(codec, {ids[stop]}, i)
        return stop + 1
    for at in range(end, len(ids)):
        if ids[at] in codec.stop_ids:
            return at + 1
        if codec.tokenizer.decode([ids[at]]).strip():
            break
    return end


# --- by prefixes ---------------------------------------------------------------------------


def _by_prefixes(
    codec: TextCodec, prompt: TurnsPrompt, whole: Sequence[Message], own: Sequence[int]
) -> Given:
    """By rendering the conversation up to each of the turns that are learned, and through it.

    The end of a turn is told from what follows it as in `TextCodec`: `lead` belongs to the turn.
    """
    text = _through(codec, whole, own[-1])
    cuts: list[int] = []  # where a turn begins, where it ends, where the next begins, …
    for i in own:
        before = prompt.rendered if i == own[0] else _rendered(codec, whole[:i], opened=True)
        said = text if i == own[-1] else _through(codec, whole[: i + 1], i)
        if not (text.startswith(before) and text.startswith(said) and len(before) <= len(said)):
            raise _differs(i)
        _require_whole(whole[i]["content"], text[len(before) : len(said)], i)
        cuts += [len(before), len(said)]
    ids, places = _encoded(codec, prompt, text, cuts)
    chosen = [False] * len(ids)
    for i, begin, end in zip(own, places[::2], places[1::2], strict=True):
        held = codec.stop_ids & set(ids[begin:end])
        if held:
            raise _holds_stop(codec, held, i)
        closes = end < len(ids) and ids[end] in codec.stop_ids
        chosen[begin : end + closes] = [True] * (end + closes - begin)
    return Given((*ids, codec.end_of_turn), (*chosen, True))


def _through(codec: TextCodec, whole: Sequence[Message], last: int) -> str:
    """The rendering through an assistant's turn, up to the token that ends it."""
    text = _rendered(codec, whole, opened=False)
    if not text.endswith(codec.tail):
        raise _differs(last)
    return text[: len(text) - len(codec.tail)] + codec.lead


def _encoded(
    codec: TextCodec, prompt: Prompt, text: str, cuts: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Ids of `text` behind the prompt's, and which of them is the first behind each cut."""
    found = codec.tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    begins, ends = zip(*found["offset_mapping"], strict=True)
    places = [bisect_left(begins, cut) for cut in cuts]
    start = len(prompt.ids)
    at_seams = all(ends[p - 1] <= cut for p, cut in zip(places, cuts, strict=True))
    if at_seams and places[0] == start and tuple(found["input_ids"][:start]) == prompt.ids:
        return found["input_ids"][start:], [place - start for place in places]
    ids, places = [], [0]
    for begin, end in pairwise(cuts):
        piece = codec.tokenizer(text[begin:end], add_special_tokens=False, verbose=False)
        ids += piece["input_ids"]
        places.append(len(ids))
    decode = codec.tokenizer.decode
    if decode([*prompt.ids, *ids]) != decode(found["input_ids"]):
        raise UserError(
            "the tokenizer writes a turn of the assistant otherwise behind its opening than in the "
            "whole conversation: begin its turns without spaces and line breaks"
        )
    return ids, places


# --- both ----------------------------------------------------------------------------------


def _rendered(codec: TextCodec, messages: Sequence[Message], *, opened: bool) -> str:
    if codec.template is None:
        raise UserError(
            "a conversation of several messages needs a chat template, but template='none' was "
            "asked for"
        )
    return render(codec.tokenizer, codec.template, list(messages), generation_prompt=opened)


def _require_whole(content: str, written: str, i: int) -> None:
    """UserError where the template leaves out some of a turn, such as its reasoning."""
    if "".join(content.split()) not in "".join(written.split()):
        raise _differs(i)


def _differs(i: int) -> UserError:
    return UserError(
        f"the chat template writes message {i + 1} (the assistant's) differently once later messages "
        "are there, so the conversation cannot be learned as it would be met: give every turn of the "
        "assistant a row of its own (prompt, completion), or another template by --template"
    )


def _holds_stop(codec: TextCodec, held: set[int] | frozenset[int], i: int) -> UserError:
    names = ", ".join(sorted(codec.tokenizer.convert_ids_to_tokens(list(held))))
    return UserError(
        f"message {i + 1} (the assistant's) holds {names}, which would end it early: leave stop "
        "tokens out of its turns"
    )
