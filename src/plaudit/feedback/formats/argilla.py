"""Argilla's records, flattened: fields, and for each question its responses, who gave them, their status.

    prompt, answer_0, answer_1, preference.responses [..], preference.responses.users, .status

Only submitted responses are votes; drafts and discarded ones are counted. The kind of a question shows
in its answers: a label that names a field, or tie or both_bad, is a comparison; a list of fields with
ranks a ranking; a number the score of the one answer, or of that in whose name the question ends; a text
words, or, of a question that begins with edit, an edit. Suggestions are nobody's votes.
Source: argilla-io/argilla, argilla/src/argilla/records/_io/_generic.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plaudit.feedback.entries import (
    Item,
    NewVote,
    Segment,
    Vote,
    comparison_vote,
    edit_vote,
    ranking_vote,
    score_vote,
    words_vote,
)
from plaudit.feedback.formats.base import (
    SAID,
    Format,
    Judged,
    Manner,
    Reading,
    each_row,
    manner,
    said,
)
from plaudit.feedback.formats.fields import one_text, text_of
from plaudit.feedback.formats.writing import each_item
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import Row, brief, listed_names

_TIES = {"tie": "tie", "both_bad": "both_bad", "both bad": "both_bad"}
_ANSWERS = ("answer", "response", "completion", "generation", "chosen", "rejected")
"""How fields begin that hold answers, where nothing names them."""
Response = tuple[Any, str, str, Mapping[str, Any]]


def questions_of(row: Row) -> dict[str, list[Response]]:
    """(value, user, status, columns `SAID`) of the responses to each question."""
    found: dict[str, list[Response]] = {}
    for name in [n.removesuffix(".responses") for n in row if n.endswith(".responses")]:
        values = row[f"{name}.responses"] or []
        users, states = (row.get(f"{name}.responses.{what}") for what in ("users", "status"))
        users = [""] * len(values) if users is None else users
        states = ["submitted"] * len(values) if states is None else states
        lengths = {len(values), len(users), len(states)}
        if len(lengths) != 1:
            raise UserError(f"the responses of {name!r}, their users and status differ in number")
        more = {key: row.get(f"{name}.responses.{key}") for key in SAID}
        for n, (value, user, state) in enumerate(zip(values, users, states, strict=True)):
            own = {k: v[n] for k, v in more.items() if isinstance(v, list) and n < len(v)}
            found.setdefault(name, []).append((value, str(user or ""), str(state), own))
    return found or _listed(row)


def _listed(row: Row) -> dict[str, list[Response]]:
    """The same where each question holds a list of responses, as older exports do."""
    found: dict[str, list[Response]] = {}
    for name, value in row.items():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(one, Mapping) and {"value", "status"} <= one.keys() for one in value)
        ):
            found[name] = [
                (one["value"], str(one.get("user_id") or ""), str(one["status"]), {})
                for one in value
            ]
    return found


def _read(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    questions = questions_of(row)
    fields = _fields(row, questions, reading)
    prompt = text_of(row, reading.columns.get("prompt", "prompt"))
    segments = [
        Segment(text_of(row, field), model=row.get(f"{field}.model") or None) for field in fields
    ]
    item = reading.item("argilla", prompt, segments)
    votes = []
    for question, responses in questions.items():
        for value, user, state, own in responses:
            if state != "submitted":
                reading.left_out[f"{state} responses"] += 1
                continue
            ours = manner(own, len(fields), reading)
            who = ours.rater or user
            votes.append(_vote(item, question, value, fields, who, ours))
    yield reading.judged(where, item, *votes)


def _fields(row: Row, questions: Mapping[str, Any], reading: Reading) -> list[str]:
    """The fields that are answers: those named by --columns, else those called so."""
    named = [n for n in reading.columns if n != "prompt"]
    if named:
        fields = [reading.columns[name] for name in named]
    else:
        fields = [
            name
            for name, value in row.items()
            if isinstance(value, str)
            and name.startswith(_ANSWERS)
            and "." not in name
            and name not in questions
        ]
    missing = [name for name in fields if name not in row]
    if not fields or missing:
        texts = [n for n, v in row.items() if isinstance(v, str) and "." not in n]
        wanted = f"no field {missing[0]!r}{nearest(missing[0], texts)}" if missing else (
            "no field is called an answer"
        )  # fmt: skip
        raise UserError(
            f"{wanted} among {listed_names(texts)}; name them by --columns prompt=FIELD "
            "answer_0=FIELD answer_1=FIELD"
        )
    return fields


def _vote(
    item: Item, question: str, value: Any, fields: list[str], who: str, ours: Manner
) -> NewVote:
    how: dict[str, Any] = {"seconds": ours.seconds}
    if isinstance(value, list):
        return ranking_vote(
            item.key, who, _groups(value, fields, question), shown=ours.shown, **how
        )
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"a response to {question!r} is {brief(value)}, which is no kind of answer")
    if isinstance(value, int | float):
        return score_vote(item.key, who, value, segment=_about(question, fields), **how)
    if question.startswith("edit"):
        return edit_vote(item.key, who, value, segment=_about(question, fields), **how)
    if not question.startswith("words") and (value in _TIES or value in fields):
        if len(fields) != 2:
            raise UserError(
                f"a response to {question!r} chooses {value!r} of {len(fields)} answers, expected two"
            )
        preference = _TIES.get(value) or "ab"[fields.index(value)]
        shown = None if ours.shown is None else "ab" if ours.shown[0] == 0 else "ba"
        return comparison_vote(item.key, who, preference, order_shown=shown, **how)
    if question.startswith(("preference", "choice")):
        hint = nearest(value, (*fields, *_TIES))
        raise UserError(
            f"a response to {question!r} is {value!r}, expected one of {listed_names(fields)}, tie or "
            f"both_bad{hint}; name the fields by --columns answer_0=FIELD answer_1=FIELD"
        )
    about = next((n for n, f in enumerate(fields) if question.endswith(f)), None)
    return words_vote(item.key, who, value, segment=about, **how)


def _about(question: str, fields: list[str]) -> int:
    """The answer that a question is about."""
    if len(fields) == 1:
        return 0
    for number, name in enumerate(fields):
        if question.endswith(name):
            return number
    raise UserError(
        f"which of {listed_names(fields)} the question {question!r} is about is not said; let its "
        "name end in the field's"
    )


def _groups(ranked: list[Any], fields: list[str], question: str) -> list[list[int]]:
    places: dict[int, list[int]] = {}
    for one in ranked:
        if not isinstance(one, Mapping) or one.get("value") not in fields:
            raise UserError(
                f"a response to {question!r} ranks {brief(one)}, expected value (one of "
                f"{listed_names(fields)}) and rank"
            )
        rank = one.get("rank")
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise UserError(
                f"a response to {question!r} has the rank {brief(rank)}, expected a number"
            )
        places.setdefault(rank, []).append(fields.index(one["value"]))
    return [places[place] for place in sorted(places)]


# --- writing -----------------------------------------------------------------------------------


def _write(item: Item, votes: Sequence[Vote], left_out: Counter[str]) -> Iterable[Row]:
    """One record of an item, with every question that somebody answered."""
    fields = [f"answer_{position}" for position in range(len(item.segments))]
    row: Row = {"id": item.key, "status": "completed", "prompt": one_text(item.prompt, "prompts")}
    for field, segment in zip(fields, item.segments, strict=True):
        row[field] = one_text(segment.text, "answers")
        if segment.model:
            row[f"{field}.model"] = segment.model
    for vote in votes:
        answer = _answer(vote, fields)
        if answer is None:
            left_out["comparisons of some of several answers"] += 1
            continue
        question, value, state = answer
        own = said(vote, range(len(fields)))
        for name, one in {"": value, "users": vote.rater, "status": state, **own}.items():
            column = f"{question}.responses.{name}".rstrip(".")
            row.setdefault(column, []).append(one)
    if _is_record(row):
        yield row


def _answer(vote: Vote, fields: list[str]) -> tuple[str, Any, str] | None:
    """The question that a vote answers, its answer and status; None where no question can be."""
    value, state = vote.value, "submitted"
    if vote.kind == "skip":
        return "preference", None, "discarded"
    if vote.kind == "comparison":
        if len(fields) != 2:
            return None
        chosen = {"a": fields[value["a"]], "b": fields[value["b"]]}
        return "preference", chosen.get(value["preference"], value["preference"]), state
    if vote.kind == "ranking":
        ranked = [
            {"value": fields[position], "rank": place}
            for place, group in enumerate(value["ranking"], start=1)
            for position in group
        ]
        return "ranking", ranked, state
    about = value.get("segment")
    name = {"score": "score", "edit": "edit", "words": "words"}[vote.kind]
    said_ = value["score"] if vote.kind == "score" else value["text"]
    return (name if about is None else f"{name}_{fields[about]}"), said_, state


def _is_record(row: Row) -> bool:
    return any(name.endswith(".responses") for name in row) or bool(_listed(row))


FORMATS = (
    Format(
        "argilla",
        "an Argilla export",
        (),
        _is_record,
        each_row(_read, "an Argilla export"),
        each_item(_write, "comparison", "ranking", "score", "edit", "words", "skip"),
        "comparisons with ties and both bad, rankings, scores, edits, words; a skip is a discarded "
        "response, which is not read as a vote",
        (".jsonl", ".jsonl.gz", ".json"),
    ),
)
