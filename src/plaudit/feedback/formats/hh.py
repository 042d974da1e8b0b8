"""HH-RLHF: two whole transcripts that part at the last answer of the assistant.

Read by `records/formats_chat.py`: the turns that both share are the prompt, and a row whose
transcripts part earlier is refused. Written from prompts of users and assistants in turn; a text that
holds "\\n\\nHuman:" or "\\n\\nAssistant:" itself would be read as two turns, and is left out. Space
around a turn is not kept by the format. Source: anthropics/hh-rlhf.
"""

from __future__ import annotations

from plaudit.feedback.entries import Item, Vote
from plaudit.feedback.formats.base import CannotSay, Format, said
from plaudit.feedback.formats.fields import answered, asked
from plaudit.feedback.formats.trl import read_kinds
from plaudit.feedback.formats.writing import each_vote, two_answers
from plaudit.records.formats_chat import is_transcript
from plaudit.records.row_files import ENDINGS
from plaudit.records.rows import Row
from plaudit.records.turns import transcript_messages
from plaudit.records.types import Message, Text

_NAMES = {"user": "Human", "assistant": "Assistant"}


def transcript(messages: list[Message]) -> str:
    """Messages as a transcript; CannotSay where they would be read as others."""
    if any(message["role"] not in _NAMES for message in messages):
        raise CannotSay("conversations with turns of others than user and assistant")
    text = "".join(f"\n\n{_NAMES[one['role']]}: {one['content'].strip()}" for one in messages)
    back = transcript_messages(text, "text")
    if back != [{"role": m["role"], "content": m["content"].strip()} for m in messages]:
        raise CannotSay("texts that hold turns of a transcript")
    return text


def _write(vote: Vote, item: Item) -> Row:
    a, b, winner = two_answers(vote)
    chosen, rejected = (a, b) if winner == "a" else (b, a)

    def whole(answer: Text) -> str:
        turns = answered(answer)
        if len(turns) != 1:
            raise CannotSay("answers of several turns")
        return transcript([*asked(item.prompt), *turns])

    texts = {"chosen": chosen, "rejected": rejected}
    row = {name: whole(item.segments[place].text) for name, place in texts.items()}
    return row | said(vote, (chosen, rejected))


def _fits(row: Row) -> bool:
    return "prompt" not in row and (is_transcript(row["chosen"]) or is_transcript(row["rejected"]))


FORMATS = (
    Format(
        "hh",
        "HH-RLHF transcripts",
        ("chosen", "rejected"),
        _fits,
        read_kinds("preference"),
        each_vote(_write, "comparison"),
        "comparisons with a winner",
        ENDINGS,
    ),
)
