"""Work given out and answers taken in: offers are leases, and every vote on one is kept.

An offer ends by itself after a while, or is given back; what was held is then offered to others. A
late vote is kept all the same: as surplus where the item has its votes by then. Nobody is told that
there is nothing to do while an item lacks votes: when the last ones are held by others, whoever is
idle gets what was held longest, one at a time. Nobody gets an item twice, except as a repeat: a
share of the offers shows one of the person's own items again, in the opposite order.
"""

from __future__ import annotations

import math
import random
import time as clock
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from plaudit.feedback import questions as ask
from plaudit.feedback.answering import take_answers, undo_one
from plaudit.feedback.choice import is_unfinished
from plaudit.feedback.derived_tables import LeaseRow
from plaudit.feedback.drawing import (
    Desk,
    Draw,
    last_item,
    person,
    state_of,
    up_to_date,
)
from plaudit.feedback.group import GroupCommit, Job
from plaudit.feedback.holding import Hold, draw_for, held_at_once, held_by, offers_of
from plaudit.feedback.log import Log
from plaudit.feedback.offered import (
    Answered,
    Answers,
    Offer,
    OfferSettings,
    OfferVote,
    Progress,
    Undone,
    check_settings,
    read_settings,
    write_settings,
)
from plaudit.feedback.pool import end_leases, num_open, pool_of
from plaudit.feedback.rebuild import rebuild
from plaudit.feedback.tables import OfferRow, ReleaseRow, VoteRow
from plaudit.feedback.tasks import check_ask
from plaudit.records.errors import UserError, nearest

MOST_DRAWN = 30
MOST_UNDONE = 50

_IS_HELD = select(LeaseRow.offer_id).where(LeaseRow.offer_id == bindparam("offer"))
_BY_KEY = select(OfferRow.__table__).where(OfferRow.key == bindparam("key"))


class Offers:
    """The offers of a store. `generator` chooses what to show; it is seeded by the system."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._group = GroupCommit(log.turn, log.batch, self._work)
        self._today: tuple[float, int] = (0.0, 0)
        self._desk = Desk(random.Random())

    @property
    def generator(self) -> random.Random:
        """What chooses."""
        return self._desk.generator

    @generator.setter
    def generator(self, generator: random.Random) -> None:
        self._desk.generator = generator

    # --- settings --------------------------------------------------------------------------

    @property
    def settings(self) -> OfferSettings:
        """How work is given out, for every process that uses this store."""
        with self._log.reading() as connection:
            return read_settings(connection)

    def configure(self, *, now: float | None = None, **changes: Any) -> OfferSettings:
        """Change some settings. Errors: an unknown name, a value that makes no sense."""
        with self._log.batch(), self._log.reading() as connection:
            before = read_settings(connection)
            for name in changes:
                if name not in asdict(before):
                    hint = nearest(name, asdict(before))
                    raise UserError(f"there is no setting {name!r} of offers{hint}")
            settings = replace(before, **changes)
            check_settings(settings)
            write_settings(connection, settings)
            pool = pool_of(connection)
            if pool is not None and pool.overlap != settings.overlap:
                rebuild(connection, overlap=settings.overlap, now=_now(now))
        return settings

    # --- giving out ------------------------------------------------------------------------

    def draw(
        self, annotator: str, n: int, *, asks: str = "auto", now: float | None = None
    ) -> list[Offer]:
        """At most `n` new offers, durable; none where nothing is open to this person.

        `asks` says what to ask where an item's segments allow it; "auto" leaves it to the item.
        """
        if not 0 < n <= MOST_DRAWN:
            raise UserError(f"{n} offers are asked for, expected 1 to {MOST_DRAWN}")
        check_ask(asks)
        offers: list[Offer] = self._do(Draw(annotator, n, asks, _now(now)))
        return offers

    def hold(
        self, annotator: str, n: int, *, asks: str = "auto", now: float | None = None
    ) -> list[Offer]:
        """What the person holds, at most `n`, and new offers so that they hold `n`."""
        if not 0 < n <= MOST_DRAWN:
            raise UserError(f"{n} offers are asked for, expected 1 to {MOST_DRAWN}")
        check_ask(asks)
        offers: list[Offer] = self._do(Hold(annotator, n, asks, _now(now)))
        return offers

    def do_all(self, asked: Sequence[Answers | Draw | Hold]) -> list[Job]:
        """What several people ask for at once, in one transaction where none of it fails."""
        return self._group.do_all(asked)

    def mine(self, annotator: str, *, now: float | None = None) -> list[Offer]:
        """What the person holds, in the order drawn."""
        with self._log.reading() as connection:
            who = person(connection, annotator)
            return offers_of(connection, held_by(connection, who.id, _now(now)))

    def waiting(self, annotator: str, *, now: float | None = None) -> bool:
        """Whether there is, or may soon be, something to do: false only when nothing is open.

        True with nothing drawn means that others hold the last items; ask again in a while.
        """
        with self._log.reading() as connection:
            who = person(connection, annotator)
            if who.paused:
                return False
            pool, last = pool_of(connection), last_item(connection)
            if pool is None or pool.through < last:
                return last > 0
            _, num_blocked = state_of(connection, who.id)
            if num_open(connection) > num_blocked or held_by(connection, who.id, _now(now)):
                return True
            return is_unfinished(connection, who.id, overlap=pool.overlap)

    def release(
        self, key: str, annotator: str, why: str = "left", *, now: float | None = None
    ) -> bool:
        """Give an offer back; says whether it was held. Errors: somebody else's, an unknown key."""
        with self._log.batch(), self._log.reading() as connection:
            who = person(connection, annotator)
            offer = connection.execute(_BY_KEY, {"key": key}).one_or_none()
            if offer is None or offer.annotator_id != who.id:
                raise UserError(f"{annotator!r} holds no offer {key!r}")
            held = connection.scalar(_IS_HELD, {"offer": offer.id}) is not None
            if held:
                _release(connection, [offer], why, _now(now))
            return held

    def release_all(self, annotator: str, why: str = "left", *, now: float | None = None) -> int:
        """Give back all that somebody holds; says how many."""
        with self._log.batch(), self._log.reading() as connection:
            who = person(connection, annotator)
            rows = held_by(connection, who.id, -math.inf)
            if rows:
                _release(connection, rows, why, _now(now))
            return len(rows)

    # --- taking in -------------------------------------------------------------------------

    def answer(
        self, annotator: str, votes: Sequence[OfferVote], *, now: float | None = None
    ) -> list[Answered]:
        """What became of each vote, durable before this returns; one bad vote stops no other.

        "kept"; "known" (sent before); "surplus" (kept, though the item had its votes or the offer
        its answer); "refused", with a sentence.
        """
        answered: list[Answered] = self._do(Answers(annotator, tuple(votes), _now(now)))
        return answered

    def undo_last(self, annotator: str, n: int = 1, *, now: float | None = None) -> list[Undone]:
        """Take back the person's last votes that stand, the newest first; fewer where there are."""
        if not 0 < n <= MOST_UNDONE:
            raise UserError(f"{n} votes are to be undone, expected 1 to {MOST_UNDONE}")
        with self._log.batch(), self._log.reading() as connection:
            person(connection, annotator)
            newest = ask.last_standing_ids(connection, annotator, n)
            votes = [ask.vote_by_id(connection, id_) for id_ in newest]
            return [self.undo(annotator, vote.key, now=now) for vote in votes if vote is not None]

    def undo(self, annotator: str, vote_key: str, *, now: float | None = None) -> Undone:
        """Take back one vote of this person's own; its offer is theirs again."""
        with self._log.batch(), self._log.reading() as connection:
            who = person(connection, annotator)
            vote = undo_one(self._log, connection, annotator, vote_key, _now(now))
            rows = held_by(connection, who.id, _now(now))
            offers = offers_of(connection, [row for row in rows if row.key == vote.offer])
            return Undone(vote.key, offers[0] if offers else None)

    # --- how far ---------------------------------------------------------------------------

    def progress(self, annotator: str, *, now: float | None = None) -> Progress:
        """How many votes of this person stand, and how many items have theirs."""
        with self._log.reading() as connection:
            who = person(connection, annotator)
            mine = sum(t.num for t in ask.tallies(connection, annotator) if t.kind != "undo")
            first = self._first_today(connection, _now(now))
            today = ask.num_since(connection, annotator, first)
            pool, last = pool_of(connection), last_item(connection)
            if pool is None:
                return Progress(mine, today, 0, last, last)
            _, num_blocked = state_of(connection, who.id)
            left = num_open(connection) - num_blocked + last - pool.through
            return Progress(mine, today, pool.num_done, last, left)

    def _first_today(self, connection: Connection, now: float) -> int:
        """The first vote since midnight here, looked up once a day: times in the log only grow."""
        day = clock.localtime(now)
        midnight = clock.mktime((*day[:3], 0, 0, 0, 0, 0, -1))
        if self._today[0] == midnight:
            return self._today[1]
        first = ask.first_since(connection, midnight)
        if first <= ask.last_id(connection, VoteRow):
            self._today = midnight, first
        return first

    # --- inside ----------------------------------------------------------------------------

    def _do(self, what: Any) -> Any:
        if not self._log.is_writing():
            return self._group.do(what)
        job = Job(what)  # in a batch of the caller's, which commits it
        self._work([job])
        if job.error is not None:
            raise job.error
        return job.result

    def _work(self, jobs: Sequence[Job]) -> None:
        """All answers, then all draws; of who wants to hold some, what is held stands first."""
        with self._log.reading() as connection:
            answers = [job for job in jobs if isinstance(job.what, Answers)]
            if answers:
                if pool_of(connection) is None:
                    up_to_date(connection, answers[0].what.now)
                results = take_answers(self._log, connection, [job.what for job in answers])
                for job, result in zip(answers, results, strict=True):
                    job.result = result
            draws = [(job, job.what) for job in jobs if isinstance(job.what, Draw)]
            holds = [job for job in jobs if isinstance(job.what, Hold)]
            if holds:
                held = held_at_once(connection, [job.what for job in holds])
                for job, offers in zip(holds, held, strict=True):
                    job.result = offers
                    if (draw := draw_for(job.what, offers)) is not None:
                        draws.append((job, draw))
            if draws:
                served = self._desk.serve(connection, [draw for _, draw in draws])
                for (job, _), one in zip(draws, served, strict=True):
                    if isinstance(one, UserError):
                        job.error = one
                    else:
                        job.result = [*(job.result or ()), *one]


def _now(now: float | None) -> float:
    return clock.time() if now is None else now


def _release(connection: Connection, offers: Sequence[Any], why: str, now: float) -> None:
    rows = [{"offer_id": offer.id, "why": why[:200], "time": now} for offer in offers]
    connection.execute(insert(ReleaseRow), rows)
    pool = pool_of(connection)
    assert pool is not None  # somebody holds an offer
    end_leases(connection, pool, {offer.id: offer.item_id for offer in offers}, now)
