"""Chatbot Arena's battles in its three dialects, which have three spellings of "both are bad".

    battles    winner model_a | model_b | tie | tie (bothbad), conversations of role and content
    140k       winner model_a | model_b | tie | both_bad, contents that are lists of typed parts
    55k        winner_model_a | winner_model_b | winner_tie, one of them 1; turns as JSON lists

A prompt is what both conversations share, an answer what follows. The model named a stood on the
left. A battle with pictures is left out. 55k has no word for both bad, nor for who judged.
Sources: lm-sys/FastChat; the data cards of arena-human-preference-55k and -140k.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from plaudit.feedback.entries import Item, Segment, Vote, comparison_vote
from plaudit.feedback.formats.base import (
    CannotSay,
    Format,
    Judged,
    Reading,
    each_row,
    manner,
    said,
)
from plaudit.feedback.formats.fields import (
    answered,
    asked,
    list_of,
    name_of,
    need,
    number_of,
    one_of,
    plainest,
    text_of,
)
from plaudit.feedback.formats.writing import each_vote, sides
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, brief
from plaudit.records.turns import shared_beginning
from plaudit.records.types import Message

_WORDS = {
    "model_a": "a",
    "model_b": "b",
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "both_bad": "both_bad",
    "bothbad": "both_bad",
}
_KEPT = ("language", "turn", "category_tag", "is_code")
"""What is kept of a battle as the item's columns."""


# --- conversations -----------------------------------------------------------------------------


def _conversation(row: Row, name: str) -> list[Message]:
    turns: list[Message] = []
    for number, turn in enumerate(list_of(row, name), start=1):
        if not isinstance(turn, Mapping):
            raise UserError(f"{name!r} turn {number} is {brief(turn)}, expected role and content")
        role = one_of(need(turn, "role", name), ("user", "assistant", "system"), "role")
        content = need(turn, "content", name)
        if isinstance(content, list):
            content = _parts(content, name)
        if not isinstance(content, str):
            raise UserError(f"{name!r} turn {number}: content is {brief(content)}, expected a text")
        turns.append({"role": role, "content": content})
    if not turns:
        raise UserError(f"{name!r} is empty, expected a conversation")
    return turns


def _parts(parts: list[Any], name: str) -> str:
    """The text of a content in typed parts; CannotSay where one of them is not text."""
    texts = []
    for part in parts:
        if not isinstance(part, Mapping):
            raise UserError(f"{name!r} has the part {brief(part)}, expected an object with a type")
        if part.get("type") != "text":
            raise CannotSay("battles with pictures or files")
        texts.append(text_of(part, "text", name))
    return "\n".join(texts)


def _battle(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    try:
        first, second = _conversation(row, "conversation_a"), _conversation(row, "conversation_b")
    except CannotSay as reason:
        reading.left_out[str(reason)] += 1
        return
    shared = shared_beginning(first, second)
    if not shared:
        raise UserError(
            "'conversation_a' and 'conversation_b' share no turn, so there is no prompt"
        )
    if first[shared - 1]["role"] == "assistant":
        shared -= 1  # both answers began alike
    prompt = plainest(first[:shared], "user")
    winner = one_of(need(row, "winner"), _WORDS, "winner")
    kept = {name: row[name] for name in _KEPT if row.get(name) is not None}
    answers = (first[shared:], second[shared:])
    yield _judged(row, reading, where, prompt, answers, _WORDS[winner], kept)


def _judged(
    row: Row, reading: Reading, where: str, prompt: Any, answers: Any, winner: str, kept: Row
) -> Judged:
    segments = [
        Segment(plainest(turns, "assistant"), model=name_of(row, f"model_{side}") or None)
        for side, turns in zip("ab", answers, strict=True)
    ]
    ours = manner(row, 2, reading)
    judge = ours.rater or name_of(row, "judge") or name_of(row, "evaluation_session_id")
    time = row.get("tstamp", row.get("timestamp"))
    item = reading.item("arena", prompt, segments, kept)
    order = ours.shown if ours.rater else (0, 1)
    vote = comparison_vote(
        item.key,
        judge,
        winner,
        order_shown=None if order is None else "ab" if order == (0, 1) else "ba",
        seconds=ours.seconds,
        time=time if isinstance(time, int | float) else None,
    )
    return reading.judged(where, item, vote)


def _one_hot(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    names = {"winner_model_a": "a", "winner_model_b": "b", "winner_tie": "tie"}
    won = [name for name in names if number_of(need(row, name), name) == 1]
    if len(won) != 1:
        raise UserError(f"{len(won)} of {', '.join(names)} are 1, expected one")
    turns = _texts(row, "prompt")
    sides = [_texts(row, "response_a"), _texts(row, "response_b")]
    if not turns or any(len(side) != len(turns) for side in sides):
        lengths = ", ".join(str(len(side)) for side in (turns, *sides))
        raise UserError(
            f"'prompt', 'response_a', 'response_b' have {lengths} turns, expected as many"
        )
    if any(text is None for side in (turns, *sides) for text in side):
        reading.left_out["battles in which a model said nothing"] += 1
        return
    prompt: Any = turns[0]
    answers = [_woven(turns[1:], side) for side in sides]
    yield _judged(row, reading, where, prompt, answers, names[won[0]], {})


def _texts(row: Row, name: str) -> list[Any]:
    texts = list_of(row, name)
    for text in texts:
        if not isinstance(text, str | None):
            raise UserError(f"{name!r} holds {brief(text)}, expected texts")
    return texts


def _woven(questions: list[str], answers: list[str]) -> list[Message]:
    """An answer and, for every further question, the question and its answer."""
    turns: list[Message] = [{"role": "assistant", "content": answers[0]}]
    for question, answer in zip(questions, answers[1:], strict=True):
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": answer})
    return turns


# --- writing -----------------------------------------------------------------------------------


def _row(vote: Vote, item: Item) -> tuple[Row, list[list[Message]], str]:
    a, b, winner = sides(vote)
    talks = [asked(item.prompt) + answered(item.segments[place].text) for place in (a, b)]
    row: Row = {
        "model_a": item.segments[a].model or "",
        "model_b": item.segments[b].model or "",
    }
    return row | said(vote, (a, b)), talks, winner


def _write_battle(vote: Vote, item: Item) -> Row:
    row, talks, winner = _row(vote, item)
    words = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
    return {
        "question_id": item.key,
        "model_a": row.pop("model_a"),
        "model_b": row.pop("model_b"),
        "winner": words[winner],
        "judge": vote.rater,
        "conversation_a": talks[0],
        "conversation_b": talks[1],
        "turn": sum(turn["role"] == "user" for turn in talks[0]),
        "anony": True,
        "language": item.columns.get("language", "unknown"),
        "tstamp": vote.time,
    } | row


def _write_140k(vote: Vote, item: Item) -> Row:
    row, talks, winner = _row(vote, item)
    words = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "both_bad"}
    typed = [
        [
            {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
            for turn in talk
        ]
        for talk in talks
    ]
    return {
        "id": vote.key,
        "model_a": row.pop("model_a"),
        "model_b": row.pop("model_b"),
        "winner": words[winner],
        "evaluation_session_id": vote.rater,
        "evaluation_order": 1,
        "conversation_a": typed[0],
        "conversation_b": typed[1],
        "language": item.columns.get("language", "unknown"),
        "timestamp": vote.time,
    } | row


def _write_55k(vote: Vote, item: Item) -> Row:
    row, talks, winner = _row(vote, item)
    if winner == "both_bad":
        raise CannotSay("both bad")
    questions, others = ([t["content"] for t in talk if t["role"] == "user"] for talk in talks)
    answers = [[t["content"] for t in talk if t["role"] == "assistant"] for talk in talks]
    if (
        questions != others
        or len(asked(item.prompt)) != 1
        or any(
            [turn["role"] for turn in talk] != ["user", "assistant"] * len(questions)
            for talk in talks
        )
    ):
        raise CannotSay("conversations that are not one question and one answer in turn")
    return {
        "id": vote.key,
        "model_a": row.pop("model_a"),
        "model_b": row.pop("model_b"),
        "prompt": json.dumps(questions, ensure_ascii=False),
        "response_a": json.dumps(answers[0], ensure_ascii=False),
        "response_b": json.dumps(answers[1], ensure_ascii=False),
        "winner_model_a": int(winner == "a"),
        "winner_model_b": int(winner == "b"),
        "winner_tie": int(winner == "tie"),
    } | row


def _is_typed(row: Row) -> bool:
    talk = row["conversation_a"]
    first = talk[0] if isinstance(talk, list) and talk else None
    return isinstance(first, Mapping) and isinstance(first.get("content"), list)


_BATTLE = ("model_a", "model_b", "winner", "conversation_a", "conversation_b")

FORMATS = (
    Format(
        "arena",
        "Chatbot Arena's battles",
        _BATTLE,
        lambda row: not _is_typed(row),
        each_row(_battle, "Chatbot Arena's battles"),
        each_vote(_write_battle, "comparison"),
        "comparisons with ties and both bad, models, who judged",
    ),
    Format(
        "arena-140k",
        "Chatbot Arena's 140k preferences",
        _BATTLE,
        _is_typed,
        each_row(_battle, "Chatbot Arena's 140k preferences"),
        each_vote(_write_140k, "comparison"),
        "comparisons with ties and both bad, models, the session as who judged",
    ),
    Format(
        "arena-55k",
        "Chatbot Arena's 55k preferences",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        lambda row: True,
        each_row(_one_hot, "Chatbot Arena's 55k preferences"),
        each_vote(_write_55k, "comparison"),
        "comparisons with ties; both bad cannot be said",
        (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".parquet"),
    ),
)
