"""UltraFeedback, raw: several answers to an instruction, each with ratings that are texts.

An answer's score is its `overall_score`, or the mean of its ratings that are numbers; one that has
neither is an answer without a score. Ratings and reasons are kept with the answer, so that they are
written back. Source: openbmb/UltraFeedback.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plaudit.feedback.entries import Item, Segment, Vote, score_vote
from plaudit.feedback.formats.base import Format, Judged, Reading, each_row, manner, said
from plaudit.feedback.formats.fields import list_of, number_of, one_text, text_of
from plaudit.feedback.formats.writing import by_rater, each_item
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, brief

_ROW = ("source", "models", "correct_answers", "incorrect_answers")
_ANSWER = ("principle", "custom_system_prompt", "annotations", "critique", "fine-grained_score")
_NOTHING = ("N/A", "", None)


def _read(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    completions = list_of(row, "completions")
    if not completions:
        raise UserError("'completions' is empty, expected at least one answer")
    segments = [_segment(one, number) for number, one in enumerate(completions, start=1)]
    columns = {name: row[name] for name in _ROW if row.get(name) is not None}
    item = reading.item("ultrafeedback", text_of(row, "instruction"), segments, columns)
    votes = []
    for position, one in enumerate(completions):
        score = _score(one, position + 1)
        if score is None:
            reading.left_out["answers without a rating"] += 1
            continue
        ours = manner(one, 1, reading)
        votes.append(
            score_vote(item.key, ours.rater, score, segment=position, seconds=ours.seconds)
        )
    yield reading.judged(where, item, *votes)


def _segment(one: Any, number: int) -> Segment:
    if not isinstance(one, Mapping):
        raise UserError(f"'completions' {number} is {brief(one)}, expected an object")
    extra = {name: one[name] for name in _ANSWER if one.get(name) not in (None, "", {})}
    text = text_of(one, "response", f"completions {number}")
    return Segment(text, model=one.get("model") or None, extra=extra)


def _score(one: Mapping[str, Any], number: int) -> float | None:
    """The overall score, else the mean of the ratings; None where there is neither."""
    where = f"completions {number}"
    if one.get("overall_score") not in _NOTHING:
        return number_of(one["overall_score"], f"{where} overall_score")
    rated = one.get("annotations") or {}
    if not isinstance(rated, Mapping):
        raise UserError(f"'annotations' of {where} is {brief(rated)}, expected an object")
    ratings = [
        number_of(aspect["Rating"], f"{where} {name}")
        for name, aspect in rated.items()
        if isinstance(aspect, Mapping) and aspect.get("Rating") not in _NOTHING
    ]
    return sum(ratings) / len(ratings) if ratings else None


def _write(item: Item, votes: Sequence[Vote], left_out: Counter[str]) -> Iterable[Row]:
    """A row for each rater, with the latest score of each answer."""
    instruction = one_text(item.prompt, "prompts")
    texts = [one_text(segment.text, "answers") for segment in item.segments]
    for mine in by_rater(votes).values():
        given = {vote.value["segment"]: vote for vote in mine}
        left_out["scores that the rater gave anew"] += len(mine) - len(given)
        completions = []
        for position, (text, segment) in enumerate(zip(texts, item.segments, strict=True)):
            one: Row = {"model": segment.model or "", "response": text}
            one |= {name: segment.extra.get(name) for name in _ANSWER[:2]}
            one["annotations"] = segment.extra.get("annotations", {})
            vote = given.get(position)
            if vote is None:
                one |= {"annotations": {}, "overall_score": None}
            else:
                one |= {"overall_score": vote.value["score"]} | said(vote, (position,))
            completions.append(one)
        yield {
            "source": item.columns.get("source", "plaudit"),
            "instruction": instruction,
            "models": [segment.model or "" for segment in item.segments],
            "correct_answers": item.columns.get("correct_answers", ["None"]),
            "incorrect_answers": item.columns.get("incorrect_answers", ["None"]),
            "completions": completions,
        }


def _fits(row: Row) -> bool:
    answers = row["completions"]
    return (
        isinstance(row["instruction"], str)
        and isinstance(answers, list)
        and bool(answers)
        and all(
            isinstance(one, Mapping)
            and "response" in one
            and bool({"overall_score", "annotations"} & one.keys())
            for one in answers
        )
    )


FORMATS = (
    Format(
        "ultrafeedback",
        "UltraFeedback (raw)",
        ("instruction", "completions"),
        _fits,
        each_row(_read, "UltraFeedback (raw)"),
        each_item(_write, "score"),
        "scores of several answers, models, ratings and reasons",
        (".jsonl", ".jsonl.gz", ".json"),
    ),
)
