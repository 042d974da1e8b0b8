"""OpenAI's comparisons of summaries and their ratings on four axes.

    comparisons   info, summaries [text, policy, note] × 2, choice 0 | 1, worker, extra.confidence
    axes          info, summary.axes {overall, accuracy, coverage, coherence}, worker

The prompt is the post with its subreddit and title, or the article, and what is asked. Each axis is
a score of its own, on an item whose column `axis` names it. Whether a confidence of 1 to 9 runs from
one side to the other or from little to much is not said: where no row contradicts the first it is
read so, its distance from 5 being the strength, and else as the strength itself; the reply says which.
Source: openai/summarize-from-feedback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plaudit.feedback.entries import Item, Segment, Vote, comparison_vote, score_vote
from plaudit.feedback.formats.base import (
    Format,
    Judged,
    Reading,
    each_row,
    manner,
    said,
)
from plaudit.feedback.formats.fields import (
    list_of,
    name_of,
    need,
    number_of,
    object_of,
    one_text,
    text_of,
)
from plaudit.feedback.formats.writing import each_vote, two_answers
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, brief

AXES = ("overall", "accuracy", "coverage", "coherence")
_MIDDLE = 5


def _prompt(info: Mapping[str, Any]) -> str:
    """The post or the article as it was put to the models."""
    if info.get("article") is not None:
        title = name_of(info, "title")
        head = f"Title: {title}\n\n" if title else ""
        return f"{head}Article: {text_of(info, 'article', 'info')}\n\nTL;DR:"
    post = text_of(info, "post", "info")
    forum, title = name_of(info, "subreddit"), name_of(info, "title")
    if not forum and not title:
        return post
    return f"SUBREDDIT: r/{forum}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"


def _summary(one: Any) -> Segment:
    if not isinstance(one, Mapping):
        raise UserError(f"a summary is {brief(one)}, expected an object with text and policy")
    return Segment(text_of(one, "text", "a summary"), model=name_of(one, "policy") or None)


def _columns(row: Row) -> Row:
    info = {name: value for name, value in row["info"].items() if value is not None}
    return {"info": info}


def _comparison(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    info = object_of(row, "info")
    summaries = [_summary(one) for one in list_of(row, "summaries")]
    if len(summaries) != 2:
        raise UserError(f"'summaries' has {len(summaries)}, expected two")
    choice = need(row, "choice")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise UserError(f"'choice' is {brief(choice)}, expected 0 or 1")
    item = reading.item("openai", _prompt(info), summaries, _columns(row))
    ours = manner(row, 2, reading)
    vote = comparison_vote(
        item.key,
        ours.rater or name_of(row, "worker"),
        "ab"[choice],
        strength=_strength(row, choice, reading),
        order_shown=None if ours.shown is None else "ab" if ours.shown[0] == 0 else "ba",
        seconds=ours.seconds,
    )
    yield reading.judged(where, item, vote)


def _strength(row: Row, choice: int, reading: Reading) -> float | None:
    extra = row.get("extra") or {}
    if "strength" in extra:
        return None if extra["strength"] is None else number_of(extra["strength"], "strength")
    value = extra.get("confidence")
    if value is None:
        return None
    confidence = number_of(value, "confidence")
    if not 1 <= confidence <= 9:
        raise UserError(f"'confidence' is {confidence}, expected 1 to 9")
    against = confidence > _MIDDLE if choice == 0 else confidence < _MIDDLE
    reading.seen["confidence"] += 1
    reading.seen["confidence against choice"] += against
    if reading.checked is None:  # the first time through: what the scale is shows at the end
        return None
    if reading.checked["confidence against choice"]:
        reading.note("confidence (1 to 9) is read as the strength of the preference")
        return confidence
    reading.note("confidence is read as a scale from the first (1) to the second (9) summary")
    return abs(confidence - _MIDDLE) or None


def _axes(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    info, summary = object_of(row, "info"), object_of(row, "summary")
    axes = object_of(summary, "axes", "summary")
    segment = _summary(summary)
    ours = manner(row, 1, reading)
    found = [name for name in axes if axes[name] is not None]
    if not found:
        reading.left_out["rows without a rating"] += 1
    for name in found:
        columns = _columns(row) | {"axis": name}
        item = reading.item("openai-axes", _prompt(info), [segment], columns)
        score = number_of(axes[name], f"axes.{name}")
        who = ours.rater or name_of(row, "worker")
        vote = score_vote(item.key, who, score, seconds=ours.seconds)
        yield reading.judged(where, item, vote)


# --- writing -----------------------------------------------------------------------------------


def _info(item: Item) -> Row:
    """The post as it came, or the prompt as a post without a title."""
    known = item.columns.get("info")
    if isinstance(known, Mapping):
        return dict(known)
    prompt = one_text(item.prompt, "prompts")
    return {"id": item.key, "post": prompt, "title": "", "subreddit": ""}


def _written(item: Item, position: int) -> Row:
    segment = item.segments[position]
    return {"text": one_text(segment.text, "answers"), "policy": segment.model or "", "note": ""}


def _write_comparison(vote: Vote, item: Item) -> Row:
    a, b, said_ = two_answers(vote)
    return {
        "info": _info(item),
        "summaries": [_written(item, a), _written(item, b)],
        "choice": 0 if said_ == "a" else 1,
        "worker": vote.rater,
        "batch": "plaudit",
        "split": "train",
        "extra": {"strength": vote.value.get("strength")},
    } | said(vote, (a, b))


def _write_axis(vote: Vote, item: Item) -> Row:
    position = vote.value["segment"]
    axis = item.columns.get("axis", "overall")
    score = vote.value["score"]
    axes = {name: score if name == axis else None for name in (*AXES, str(axis))}
    return {
        "info": _info(item),
        "summary": _written(item, position) | {"axes": axes},
        "worker": vote.rater,
        "batch": "plaudit",
        "split": "train",
    } | said(vote, (position,))


FORMATS = (
    Format(
        "openai",
        "OpenAI's comparisons of summaries",
        ("info", "summaries", "choice"),
        lambda row: isinstance(row["info"], Mapping),
        each_row(_comparison, "OpenAI's comparisons of summaries"),
        each_vote(_write_comparison, "comparison"),
        "comparisons with a winner, strength, models, who judged",
    ),
    Format(
        "openai-axes",
        "OpenAI's ratings of summaries on axes",
        ("info", "summary"),
        lambda row: isinstance(row["summary"], Mapping) and "axes" in row["summary"],
        each_row(_axes, "OpenAI's ratings of summaries on axes"),
        each_vote(_write_axis, "score"),
        "scores, one item for each axis, models, who judged",
    ),
)
