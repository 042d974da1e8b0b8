"""Conversations as lists of messages: which are equal, what an answer adds to its prompt.

    whole conversation = prompt's turns + one turn of the assistant

A plain string is one turn of the user where a prompt is meant. Fields of a message that are null
count as absent (Parquet fills them in). Errors name the column; the caller adds file and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.records.errors import UserError
from plaudit.records.rows import brief
from plaudit.records.types import Message, Text

TRANSCRIPT = re.compile(r"\s*Human:")
"""How a transcript in the manner of HH-RLHF begins."""

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}


def canonical_messages(text: Text) -> list[Message]:
    """A prompt's messages, one user turn for a plain text; without fields that are null."""
    if isinstance(text, str):
        return [{"role": "user", "content": text}]
    whole: list[Mapping[str, Any]] = [*text]
    return [{k: v for k, v in message.items() if v is not None} for message in whole]


def is_messages(value: Any, *fields: str) -> bool:
    """Whether `value` is a list of objects that all have these fields, as texts."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(
            isinstance(turn, Mapping) and all(isinstance(turn.get(f), str) for f in fields)
            for turn in value
        )
    )


def sharegpt_messages(turns: Sequence[Mapping[str, Any]], name: str) -> list[Message]:
    """Turns with `from` and `value` as messages with role and content."""
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        if not is_messages([turn], "from", "value"):
            raise UserError(f"{name!r} turn {number} is {brief(turn)}, expected from and value")
        role = _SHAREGPT_ROLES.get(turn["from"].lower())
        if role is None:
            raise UserError(
                f"{name!r} turn {number} is from {turn['from']!r}, expected one of "
                f"{', '.join(_SHAREGPT_ROLES)} (calls of tools are not read)"
            )
        messages.append({"role": role, "content": turn["value"]})
    return messages


def transcript_messages(text: str, name: str) -> list[Message]:
    """The turns of "\\n\\nHuman: ...\\n\\nAssistant: ...", without the space around each."""
    if not TRANSCRIPT.match(text):
        raise UserError(f"{name!r} does not begin with 'Human:', as a transcript does")
    parts = _TURN.split(text)[1:]
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[who], "content": said.strip()} for who, said in turns]


def answer_after(prompt: Text, answer: Text, name: str) -> Text:
    """The answer alone: a whole conversation loses the turns of the prompt it begins with.

    Raises UserError where it begins otherwise, or where not one turn of the assistant is left.
    """
    if isinstance(answer, str):
        return answer
    begins, turns = canonical_messages(prompt), canonical_messages(answer)
    rest = list(answer)
    if len(turns) == 1:
        if turns[0]["role"] != "assistant":
            raise UserError(
                f"{name!r} is one turn of {turns[0]['role']!r}, expected a text or a turn of the "
                "assistant"
            )
        return rest
    for number, (asked, said) in enumerate(zip(begins, turns, strict=False), start=1):
        if asked != said:
            way_out = (
                "; if the whole conversation is right, leave the column 'prompt' out by another "
                "name (--columns asked=prompt)"
            )
            raise UserError(
                f"{name!r} contradicts 'prompt' in turn {number}: {_turn(said)}, not "
                f"{_turn(asked)}{way_out if name in ('chosen', 'rejected') else ''}"
            )
    rest = rest[len(begins) :]
    _require_one_answer(rest, name, "after the prompt")
    return rest


def shared_beginning(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many turns two conversations share, their last turns, which are answers, apart."""
    first, second = canonical_messages(chosen)[:-1], canonical_messages(rejected)[:-1]
    same = [a == b for a, b in zip(first, second, strict=False)]
    return same.index(False) if False in same else len(same)


def split_pair(
    chosen: Sequence[Message], rejected: Sequence[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen, rejected) of two conversations without a prompt of their own."""
    shared = shared_beginning(chosen, rejected)
    if not shared:
        raise UserError("'chosen' and 'rejected' share no turn, so there is no prompt")
    prompt = require_prompt(list(chosen[:shared]), "the turns that 'chosen' and 'rejected' share")
    answers = (list(chosen[shared:]), list(rejected[shared:]))
    for name, rest in zip(("chosen", "rejected"), answers, strict=True):
        _require_one_answer(rest, name, f"after the {shared} that both share")
    return prompt, *answers


def split_last_answer(
    messages: Sequence[Message], name: str
) -> tuple[list[Message], list[Message]]:
    """(all turns before the last, the last one, which must be the assistant's)."""
    if messages[-1]["role"] != "assistant":
        raise UserError(
            f"{name!r} ends with a turn of {messages[-1]['role']!r}, expected the assistant's "
            "answer at the end"
        )
    return require_prompt(list(messages[:-1]), f"{name!r} before its last turn"), [messages[-1]]


def require_prompt(messages: list[Message], what: str) -> list[Message]:
    """The messages, if they can be answered: some, the last not empty and not the assistant's."""
    if not messages:
        raise UserError(f"{what}: there is no turn, expected one to answer")
    if messages[-1]["role"] == "assistant":
        raise UserError(f"{what}: the last turn is the assistant's, expected one to answer")
    if not messages[-1]["content"].strip():
        raise UserError(f"{what}: the last turn is empty, expected one to answer")
    return messages


def answer_text(answer: object) -> str:
    """An answer's words: itself, or the content of its single message of the assistant."""
    if isinstance(answer, str):
        return answer
    assert isinstance(answer, list | tuple)
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise UserError("the completion must be a text or one message of the role assistant")
    return str(answer[0]["content"])


def _require_one_answer(rest: Sequence[Message], name: str, where: str) -> None:
    if len(rest) != 1:
        raise UserError(
            f"{name!r} has {len(rest)} turns {where}, expected one, the assistant's answer"
        )
    if rest[0]["role"] != "assistant":
        raise UserError(
            f"{name!r} {where} is a turn of {rest[0]['role']!r}, expected the assistant's"
        )


def _turn(message: Message) -> str:
    content = message["content"]
    return f"{message['role']} {content[:40] + '…' if len(content) > 40 else content!r}"
