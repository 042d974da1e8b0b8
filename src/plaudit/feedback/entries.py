"""What the feedback log is made of: items, segments, votes, and comparisons and scores read back.

An entry is checked when it is made, so that nothing malformed can reach the store. Votes are
opaque records of what was said; `Comparison` and `Score` are the two readings that training needs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from plaudit.records.errors import UserError, nearest
from plaudit.records.types import Text

Preference = Literal["a", "b", "tie", "both_bad"]
PREFERENCES: tuple[str, ...] = get_args(Preference)
VoteKind = Literal["score", "comparison", "ranking", "edit", "words", "skip", "flag", "undo"]
VOTE_KINDS: tuple[str, ...] = get_args(VoteKind)
Order = Literal["ab", "ba"]


@dataclass(frozen=True)
class Segment:
    """Something to judge: a completion (kind "text"), or a clip described in `extra`.

    `extra` also holds what whoever made the segment must know to find it again.
    """

    text: Text
    kind: str = "text"
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """A prompt that is shown, with the segments under it; `key` is the caller's unique name.

    `columns` are those of the prompt's row besides the prompt itself, such as its reference answer.
    """

    key: str
    prompt: Text
    segments: tuple[Segment, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewVote:
    """A vote ready to be appended; made by `comparison_vote`, `score_vote` and their kin.

    `shown` lists segment positions in the order shown. `time` is seconds since 1970 (None: now).
    `undoes` is the key of the vote that an undo takes back. Of its `seconds`, the page was in view
    for `visible_seconds`.
    """

    key: str | None
    item_key: str
    rater: str
    kind: str
    value: Mapping[str, Any]
    shown: tuple[int, ...] | None = None
    seconds: float | None = None
    time: float | None = None
    undoes: str | None = None
    visible_seconds: float | None = None


@dataclass(frozen=True)
class Vote:
    """A vote as the log holds it; `undoes` is the id of the vote that an undo takes back.

    `offer` is the key of the offer that it answers, with the offer's purpose (work, repeat), policy
    and propensity; a vote of a rule or a file answers none.
    """

    id: int
    key: str
    item_key: str
    rater: str
    kind: str
    value: Mapping[str, Any]
    shown: tuple[int, ...] | None
    seconds: float | None
    time: float
    undoes: int | None
    active: bool
    visible_seconds: float | None = None
    offer: str | None = None
    purpose: str | None = None
    policy: str | None = None
    propensity: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One rater's preference between answers `a` and `b` to `prompt`."""

    item_key: str
    prompt: Text
    a: Text
    b: Text
    preference: Preference
    strength: float | None
    margin: float | None
    rater: str
    order_shown: Order | None
    seconds: float | None
    time: float
    vote_id: int
    positions: tuple[int, int] = (0, 1)
    model_a: str | None = None
    model_b: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    extra_a: Mapping[str, Any] = field(default_factory=dict)
    extra_b: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> Text | None:
        """The preferred answer, or None where neither was (tie, both bad)."""
        return {"a": self.a, "b": self.b}.get(self.preference)

    @property
    def rejected(self) -> Text | None:
        """The answer not preferred, or None where neither was (tie, both bad)."""
        return {"a": self.b, "b": self.a}.get(self.preference)


@dataclass(frozen=True)
class Score:
    """One rater's number for one answer."""

    item_key: str
    prompt: Text
    answer: Text
    score: float
    rater: str
    seconds: float | None
    time: float
    vote_id: int
    position: int = 0
    model: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def comparison_vote(
    item_key: str,
    rater: str,
    preference: str,
    *,
    key: str | None = None,
    positions: tuple[int, int] = (0, 1),
    strength: float | None = None,
    margin: float | None = None,
    order_shown: str | None = None,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """A preference between segments `positions` = (a, b) of an item.

    `strength` says how much better (more than 0), `margin` is the gap a loss may use.
    `order_shown` is "ab" or "ba". Errors: an unknown preference, a strength or margin on a tie.
    """
    where = f"comparison of item {item_key!r}"
    if preference not in PREFERENCES:
        hint = nearest(str(preference), PREFERENCES)
        raise UserError(
            f"{where}: the preference is {preference!r}, expected one of "
            f"{', '.join(PREFERENCES)}{hint}"
        )
    if order_shown not in (None, "ab", "ba"):
        raise UserError(f"{where}: order_shown is {order_shown!r}, expected 'ab' or 'ba'")
    a, b = positions
    if a == b:
        raise UserError(f"{where}: answer {a} is compared with itself")
    value: dict[str, Any] = {"a": a, "b": b, "preference": preference}
    for name, number in (("strength", strength), ("margin", margin)):
        if number is None:
            continue
        _finite(number, f"{where}: {name}")
        if preference in ("tie", "both_bad"):
            raise UserError(f"{where}: {name} {number} makes no sense with {preference!r}")
        value[name] = number
    if strength is not None and strength <= 0:
        raise UserError(f"{where}: strength is {strength}, expected more than 0")
    shown = {None: None, "ab": (a, b), "ba": (b, a)}[order_shown]
    return NewVote(key, item_key, rater, "comparison", value, shown, seconds, time)


def score_vote(
    item_key: str,
    rater: str,
    score: float,
    *,
    key: str | None = None,
    segment: int = 0,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """A finite number for one segment of an item."""
    _finite(score, f"score of item {item_key!r}")
    value = {"segment": segment, "score": score}
    return NewVote(key, item_key, rater, "score", value, (segment,), seconds, time)


def ranking_vote(
    item_key: str,
    rater: str,
    ranking: Sequence[Sequence[int]],
    *,
    key: str | None = None,
    shown: Sequence[int] | None = None,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """Segments from best to worst; positions in one inner list are tied."""
    flat = [position for group in ranking for position in group]
    if len(flat) < 2 or len(set(flat)) != len(flat) or not all(ranking):
        raise UserError(
            f"ranking of item {item_key!r}: {[list(g) for g in ranking]} must name at least two "
            "segments, each once, in groups from best to worst"
        )
    value = {"ranking": [list(group) for group in ranking]}
    order = None if shown is None else tuple(shown)
    return NewVote(key, item_key, rater, "ranking", value, order, seconds, time)


def edit_vote(
    item_key: str,
    rater: str,
    text: str,
    *,
    key: str | None = None,
    segment: int = 0,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """The answer as the rater would have it."""
    if not text.strip():
        raise UserError(f"edit of item {item_key!r}: the text is empty")
    value = {"segment": segment, "text": text}
    return NewVote(key, item_key, rater, "edit", value, (segment,), seconds, time)


def words_vote(
    item_key: str,
    rater: str,
    text: str,
    *,
    key: str | None = None,
    segment: int | None = None,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """A remark in words about an item, or about one of its segments."""
    if not text.strip():
        raise UserError(f"words on item {item_key!r}: the text is empty")
    value = {"segment": segment, "text": text}
    return NewVote(key, item_key, rater, "words", value, None, seconds, time)


def skip_vote(
    item_key: str,
    rater: str,
    *,
    key: str | None = None,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """The rater would rather not say; the item is not asked of them again."""
    return NewVote(key, item_key, rater, "skip", {}, None, seconds, time)


def flag_vote(
    item_key: str,
    rater: str,
    text: str = "",
    *,
    key: str | None = None,
    seconds: float | None = None,
    time: float | None = None,
) -> NewVote:
    """Something is wrong with the item itself; `text` may say what."""
    return NewVote(key, item_key, rater, "flag", {"text": text}, None, seconds, time)


def plain_text(text: Text) -> str:
    """The words of a text: itself, or the contents of its messages, one under another."""
    if isinstance(text, str):
        return text
    return "\n".join(message["content"] for message in text)


def canonical(value: Any, where: str) -> Any:
    """`value` as JSON gives it back (tuples become lists); UserError where JSON cannot hold it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} cannot be kept as JSON: {error}") from None


def check_name(name: object, where: str) -> str:
    """A key or rater's name: a text that is not blank and that every database can hold."""
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where} is {name!r}, expected a text that is not empty")
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(f"{where} is {name!r}, which holds characters no database can keep")
    return name


def check_item(item: Item) -> None:
    """UserError unless the item has a name, a prompt and at least one segment."""
    check_name(item.key, "an item's key")
    where = f"item {item.key!r}"
    _check_text(item.prompt, f"{where}: the prompt")
    if not item.segments:
        raise UserError(f"{where} has no segments to judge; expected a list of at least one")
    for position, segment in enumerate(item.segments):
        _check_text(segment.text, f"{where}: segment {position}", may_be_empty=True)


def check_vote(vote: NewVote, num_segments: int) -> None:
    """UserError unless names are sound and every position points at a segment of the item."""
    where = f"{vote.kind} of item {vote.item_key!r}"
    check_name(vote.rater, f"{where}: the rater's name")
    if vote.kind not in VOTE_KINDS:
        raise UserError(f"{where}: unknown kind of vote{nearest(vote.kind, VOTE_KINDS)}")
    if vote.key is not None:
        check_name(vote.key, f"{where}: the vote's key")
    took = {"seconds": vote.seconds, "visible seconds": vote.visible_seconds}
    for name, number in {**took, "time": vote.time}.items():
        if number is not None:
            _finite(number, f"{where}: {name}")
    for name, number in took.items():
        if number is not None and number < 0:
            raise UserError(f"{where}: it took {number} {name}, expected 0 or more")
    for position in (*_named_segments(vote, where), *(vote.shown or ())):
        known = isinstance(position, int) and not isinstance(position, bool)
        if not known or not 0 <= position < num_segments:
            raise UserError(
                f"{where}: there is no segment {position!r}; the item has {num_segments}, "
                "counted from 0"
            )


_VALUE_FIELDS = {
    "score": {"segment", "score"},
    "comparison": {"a", "b", "preference"},
    "ranking": {"ranking"},
    "edit": {"segment", "text"},
    "words": {"segment", "text"},
    "skip": set[str](),
    "flag": {"text"},
    "undo": set[str](),
}


def _named_segments(vote: NewVote, where: str) -> list[Any]:
    """The positions in a vote's value; UserError where the value is not one of its kind."""
    value = vote.value
    needed = _VALUE_FIELDS[vote.kind]
    extra = {"strength", "margin"} if vote.kind == "comparison" else set[str]()
    if not needed <= value.keys() <= needed | extra:
        raise UserError(
            f"{where}: its value has {', '.join(sorted(map(str, value))) or 'nothing'}, "
            f"expected {', '.join(sorted(needed)) or 'nothing'}"
        )
    if vote.kind == "comparison":
        details = {name: value.get(name) for name in ("strength", "margin")}
        sides = (value["a"], value["b"])
        comparison_vote(vote.item_key, vote.rater, value["preference"], positions=sides, **details)
        return [*sides]
    if vote.kind == "score":
        _finite(value["score"], f"{where}: the score")
    if vote.kind == "ranking":
        ranking = value["ranking"]
        if not isinstance(ranking, list) or not all(
            isinstance(group, list) and all(isinstance(position, int) for position in group)
            for group in ranking
        ):
            raise UserError(f"{where}: {ranking!r} is not a list of lists of positions")
        ranking_vote(vote.item_key, vote.rater, ranking)
        return [position for group in ranking for position in group]
    if "text" in needed:
        _check_text(value["text"], f"{where}: the text", may_be_empty=vote.kind == "flag")
    about_item = vote.kind == "words" and value["segment"] is None
    return [value["segment"]] if "segment" in needed and not about_item else []


def _check_text(text: object, where: str, *, may_be_empty: bool = False) -> None:
    if isinstance(text, str):
        if not may_be_empty and not text.strip():
            raise UserError(f"{where} is empty")
        return
    if not isinstance(text, Sequence) or not text:
        raise UserError(f"{where} is {text!r}, expected a text or a list of messages")
    for message in text:
        if not (
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise UserError(f"{where} holds {message!r}, expected a message with role and content")


def _finite(number: object, where: str) -> None:
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not abs(number) <= sys.float_info.max  # a whole number may be larger than any float
    ):
        raise UserError(f"{where} is {number!r}, expected a finite number")
