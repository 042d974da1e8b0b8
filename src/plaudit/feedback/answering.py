"""Votes on offers, of many people at once: each is checked by itself, and all are appended together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from sqlalchemy import Connection, select

from plaudit.feedback import questions as ask
from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.entries import NewVote, Vote, check_name, check_vote
from plaudit.feedback.log import Log
from plaudit.feedback.offered import Answered, Answers, OfferVote
from plaudit.feedback.pool import ANSWERS, PASSES, Pool, State, pool_of, states
from plaudit.feedback.readings import Known, vote_content
from plaudit.feedback.tables import AnnotatorRow, ItemRow, OfferRow, VoteRow
from plaudit.feedback.tasks import new_key
from plaudit.records.errors import UserError

REMARKS = ("words", "edit")
"""Kinds that may be said of any offer, besides its answer."""


class Refused(UserError):
    """A vote that cannot be kept; the message says why."""


_OFFERS = select(OfferRow.__table__, ItemRow.key.label("item_key")).join(
    ItemRow, ItemRow.id == OfferRow.item_id
)
_BY_KEY = _OFFERS.where(OfferRow.key.in_(MANY))
_PEOPLE = select(AnnotatorRow.name, AnnotatorRow.id).where(AnnotatorRow.name.in_(MANY))


class _Batch:
    """What is known of the votes that come together, kept up to date as each is taken."""

    def __init__(self, connection: Connection, given: Sequence[Answers]) -> None:
        votes = [vote for some in given for vote in some.votes]
        keys = [vote.key for vote in votes if _is_name(vote.key)]
        targets = [vote.value.get("vote") for vote in votes if vote.kind == "undo"]
        named = [key for key in targets if _is_name(key)]
        self.known = ask.known_votes(connection, [*keys, *named])
        self.targets = ask.votes_by_key(connection, named)
        self.item_keys = {vote.key: vote.item_key for vote in self.targets.values()}
        self.undone = {vote.key for vote in self.targets.values() if not vote.active}
        self.people: dict[str, int] = {}
        for chunk in chunks(some.annotator for some in given if _is_name(some.annotator)):
            rows = connection.execute(_PEOPLE, {"many": chunk})
            self.people |= {row.name: row.id for row in rows}
        self.offers: dict[str, Any] = {}
        for chunk in chunks(vote.offer for vote in votes if _is_name(vote.offer)):
            rows = connection.execute(_BY_KEY, {"many": chunk})
            self.offers |= {row.key: row for row in rows}
        items = {offer.item_id: offer.item_key for offer in self.offers.values()}
        self.sizes = ask.item_sizes(connection, items.values())
        pool = pool_of(connection)
        assert pool is not None
        self.pool: Pool = pool
        self.states: dict[int, State] = states(connection, items)
        answered = ask.answered_offers(connection, [o.id for o in self.offers.values()])
        self.answered: set[int] = answered
        self.next_id = ask.last_id(connection, VoteRow) + 1
        self.rows: list[dict[str, Any]] = []


def take_answers(
    store: Log, connection: Connection, given: Sequence[Answers]
) -> list[list[Answered]]:
    """What became of the votes of each; those kept are appended, in the order given."""
    batch = _Batch(connection, given)
    results = [
        [_take(batch, some.annotator, vote, some.now) for vote in some.votes] for some in given
    ]
    if batch.rows:
        store.append(batch.rows)
    return results


def _take(batch: _Batch, annotator: str, vote: OfferVote, now: float) -> Answered:
    try:
        return Answered(vote.key, _status(batch, annotator, vote, now))
    except UserError as error:
        return Answered(vote.key, "refused", str(error))


def _status(batch: _Batch, annotator: str, vote: OfferVote, now: float) -> str:
    if annotator not in batch.people:
        raise Refused(f"there is nobody called {annotator!r}")
    check_name(vote.key, "the vote's key")
    if vote.kind == "undo":
        return _take_undo(batch, annotator, vote, now)
    offer = _own_offer(batch, annotator, vote)
    new = NewVote(
        vote.key, offer.item_key, annotator, vote.kind, vote.value,
        tuple(offer.shown), vote.seconds, now, visible_seconds=vote.visible_seconds,
    )  # fmt: skip
    _check(new, offer, batch)
    content = vote_content(new, offer.item_id, batch.known) | {"offer": offer.id}
    if _is_known(batch, vote.key, content):
        return "known"
    _append(batch, new, content, now)
    return _counted(batch, batch.people[annotator], vote, offer)


def _own_offer(batch: _Batch, annotator: str, vote: OfferVote) -> Any:
    offer = batch.offers.get(vote.offer or "")
    if offer is None or offer.annotator_id != batch.people[annotator]:
        raise Refused("this vote answers no offer of yours")
    return offer


def _check(new: NewVote, offer: Any, batch: _Batch) -> None:
    """UserError unless the vote is one that this offer asks for, of segments that it shows."""
    fits = new.kind == ANSWERS[offer.ask] or new.kind in (*PASSES, *REMARKS)
    if not fits:
        raise Refused(f"this offer asks to {offer.ask}, and the vote is {new.kind!r}")
    check_vote(new, batch.sizes[offer.item_key][1])
    value = new.value
    named = {
        "comparison": lambda: [value["a"], value["b"]],
        "ranking": lambda: [position for group in value["ranking"] for position in group],
    }.get(new.kind, lambda: [value["segment"]] if value.get("segment") is not None else [])()
    if not set(named) <= set(offer.shown):
        raise Refused("this vote names an answer that the offer does not show")
    if new.kind == "ranking" and set(named) != set(offer.shown):
        raise Refused("this ranking leaves answers out; expected every answer that is shown")
    if new.kind == "score" and not 0 <= value["score"] <= 1:
        raise Refused(f"the score is {value['score']}, expected a number from 0 to 1")


def _is_known(batch: _Batch, key: str, content: Mapping[str, Any]) -> bool:
    before = batch.known.get(key)
    if before is None:
        return False
    if before.content | {"offer": before.offer} != content:
        raise Refused("this vote's key is there already with other content; use another key")
    return True


def _append(batch: _Batch, new: NewVote, content: dict[str, Any], now: float) -> None:
    assert new.key is not None
    details = {"seconds": new.seconds, "visible_seconds": new.visible_seconds, "time": now}
    batch.rows.append({"id": batch.next_id, "key": new.key} | details | content)
    plain = {name: part for name, part in content.items() if name != "offer"}
    batch.known[new.key] = Known(batch.next_id, plain, offer=content["offer"])
    batch.item_keys[new.key] = new.item_key
    batch.next_id += 1


def _counted(batch: _Batch, person: int, vote: OfferVote, offer: Any) -> str:
    """Whether this vote was still wanted; the votes behind it see that it is there."""
    if vote.kind in PASSES or vote.kind != ANSWERS[offer.ask] or offer.purpose == "repeat":
        return "kept"
    state = batch.states[offer.item_id]
    others = state.answerers - {person}
    again = offer.id in batch.answered or person in state.answerers
    state.answerers.add(person)
    batch.answered.add(offer.id)
    return "surplus" if again or len(others) >= batch.pool.overlap else "kept"


def _take_undo(batch: _Batch, annotator: str, vote: OfferVote, now: float) -> str:
    key = vote.value.get("vote")
    target = batch.known.get(key) if _is_name(key) else None
    if target is None or target.content["kind"] == "undo" or target.content["rater"] != annotator:
        raise Refused("there is no vote of yours with this key to undo")
    assert isinstance(key, str)
    item_key = batch.item_keys[key]
    new = NewVote(vote.key, item_key, annotator, "undo", {}, None, vote.seconds, now, key)
    content = vote_content(new, target.content["item_id"], batch.known) | {"offer": None}
    if _is_known(batch, vote.key, content) or key in batch.undone:
        return "known"
    _append(batch, new, content, now)
    batch.undone.add(key)
    offer = target.offer
    if offer is not None:
        batch.answered.discard(offer)
        state = batch.states.get(target.content["item_id"])
        if state is not None:
            state.answerers.discard(batch.people[annotator])
    return "kept"


def undo_one(store: Log, connection: Connection, annotator: str, vote_key: str, now: float) -> Vote:
    """Append an undo of somebody's own vote; gives the vote. Errors: not theirs, undone already."""
    vote = ask.votes_by_key(connection, [vote_key]).get(vote_key)
    if vote is None or vote.rater != annotator or vote.kind == "undo":
        raise UserError(f"{annotator!r} has no vote {vote_key!r} to undo")
    if not vote.active:
        raise UserError(f"vote {vote_key!r} is already undone")
    known = ask.known_votes(connection, [vote_key])
    new = NewVote(new_key(), vote.item_key, annotator, "undo", {}, undoes=vote_key)
    content = vote_content(new, known[vote_key].content["item_id"], known)
    row = {"id": ask.last_id(connection, VoteRow) + 1, "key": new.key, "time": now, "offer": None}
    store.append([row | {"seconds": None, "visible_seconds": None} | content])
    return vote


def _is_name(key: object) -> TypeGuard[str]:
    try:
        check_name(key, "a key")
    except UserError:
        return False
    return True
