"""What goes over the wire, field by field: an annotator's JSON holds nothing that is not named here.

Positions are those shown; the store has positions of its own, and `stored_value` and `Shown` are
where the one becomes the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from plaudit.feedback.entries import Segment
from plaudit.feedback.offered import Offer
from plaudit.records.errors import UserError
from plaudit.studio.problems import sentence
from plaudit.studio.texts import text_json

MOST_VOTES = 100
LONGEST_WORDS = 100_000


class Strict(BaseModel):
    """Says no to a field that is not known and to a number that is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Ask = Literal["compare", "score", "rank", "words", "edit"]
Language = Literal["en", "zh"]
Position = Annotated[int, Field(ge=0, lt=100)]
Words = Annotated[str, Field(max_length=LONGEST_WORDS)]


class TextOut(BaseModel):
    plain: str
    messages: list[dict[str, Any]] | None
    tokens: list[dict[str, Any]]


class SegmentOut(BaseModel):
    text: TextOut
    media: dict[str, Any] | None


class OfferOut(BaseModel):
    key: str
    ask: Ask
    prompt: TextOut
    segments: list[SegmentOut]
    expires: float


class Offers(BaseModel):
    offers: list[OfferOut]
    open: bool


class ComparisonValue(Strict):
    preference: Literal["first", "second", "tie", "both_bad"]
    strength: Annotated[int, Field(ge=1, le=9)] | None = None


class ScoreValue(Strict):
    segment: Position = 0
    score: float = Field(ge=0, le=1)


class RankingValue(Strict):
    ranking: list[Annotated[list[Position], Field(min_length=1)]] = Field(min_length=1)


class WordsValue(Strict):
    segment: Position | None = None
    text: Words = Field(min_length=1)


class EditValue(Strict):
    segment: Position
    text: Words = Field(min_length=1)


class SkipValue(Strict):
    pass


class FlagValue(Strict):
    text: Words = ""


class UndoValue(Strict):
    vote: str


VALUES: dict[str, type[Strict]] = {
    "comparison": ComparisonValue, "score": ScoreValue, "ranking": RankingValue,
    "words": WordsValue, "edit": EditValue, "skip": SkipValue, "flag": FlagValue, "undo": UndoValue,
}  # fmt: skip

Value = (
    ComparisonValue | ScoreValue | RankingValue | WordsValue | EditValue | UndoValue | FlagValue
    | SkipValue
)  # fmt: skip


class VoteIn(Strict):
    """A vote with its own key: sent again, it is the same vote."""

    key: str = Field(pattern="^[0-9a-f]{32}$")
    offer: str | None = Field(
        default=None, min_length=1, max_length=200, description="not needed by an undo"
    )
    kind: Literal["comparison", "score", "ranking", "words", "edit", "skip", "flag", "undo"]
    value: dict[str, Any] = Field(
        json_schema_extra={
            "anyOf": [{"$ref": f"#/components/schemas/{v.__name__}"} for v in VALUES.values()]
        }
    )
    seconds: float | None = Field(default=None, ge=0, le=1e7)
    visible_seconds: float | None = Field(default=None, ge=0, le=1e7)


class Result(BaseModel):
    key: str | None
    status: Literal["kept", "known", "surplus", "refused"]
    detail: str | None = None


class Results(BaseModel):
    results: list[Result]


class Malformed(ValueError):
    """A vote that cannot be read, with the sentence to say so."""


_VOTE: TypeAdapter[VoteIn] = TypeAdapter(VoteIn)


def vote_of(sent: Any) -> tuple[VoteIn, Strict]:
    """A vote and its value, or Malformed."""
    try:
        vote = _VOTE.validate_python(sent)
        return vote, VALUES[vote.kind].model_validate(vote.value)
    except ValidationError as error:
        raise Malformed(sentence(error.errors())) from None


def stored_value(value: Strict, shown: Sequence[int]) -> dict[str, Any]:
    """A value in the store's positions; UserError where it names what was not shown."""

    def stored(position: int) -> int:
        if position >= len(shown):
            raise UserError(f"there is no answer {position}; {len(shown)} were shown, from 0")
        return shown[position]

    match value:
        case ComparisonValue():
            if len(shown) != 2:
                raise UserError(f"a comparison is of two answers; {len(shown)} were shown")
            return _comparison(value, shown)
        case ScoreValue():
            return {"segment": stored(value.segment), "score": value.score}
        case RankingValue():
            return {"ranking": [[stored(p) for p in group] for group in value.ranking]}
        case WordsValue():
            segment = None if value.segment is None else stored(value.segment)
            return {"segment": segment, "text": value.text}
        case EditValue():
            return {"segment": stored(value.segment), "text": value.text}
    return value.model_dump()


def _comparison(value: ComparisonValue, shown: Sequence[int]) -> dict[str, Any]:
    """Segments a < b in the store's order, and which of them is preferred."""
    a, b = sorted(shown)
    sides = {"first": shown[0], "second": shown[1]}
    preferred = sides.get(value.preference)
    said = value.preference if preferred is None else ("a" if preferred == a else "b")
    stored: dict[str, Any] = {"a": a, "b": b, "preference": said}
    return stored if value.strength is None else stored | {"strength": value.strength}


def offer_json(offer: Offer) -> dict[str, Any]:
    """An offer as its annotator may see it: no model, no purpose, no column, no propensity."""
    return {
        "key": offer.key,
        "ask": offer.ask,
        "prompt": text_json(offer.prompt),
        "segments": [segment_json(offer.segments[position]) for position in offer.shown],
        "expires": offer.expires,
    }


def segment_json(segment: Segment) -> dict[str, Any]:
    return {"text": text_json(segment.text), "media": media_of(segment.extra)}


def media_of(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"digest", "type"} of a segment that has a film, else None."""
    found = extra.get("media")
    if not isinstance(found, Mapping):
        return None
    return {"digest": str(found.get("digest")), "type": str(found.get("type"))}
