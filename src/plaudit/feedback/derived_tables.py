"""Tables that the store keeps beside the log, each derived from it and able to be made anew.

`derived.py` keeps what stands, what each rater said how often and which items each has answered;
`pool.py` keeps who holds what offer, and which items may be offered.
"""

from __future__ import annotations

from sqlalchemy import Float, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from plaudit.feedback.tables import Base


class StandingRow(Base):
    """A vote that stands (undos are not votes here), with what agreement needs to know of it.

    A comparison is of segments `low` < `high`, and `said` names `low` as "a"; a score is of `low`.
    """

    __tablename__ = "standing_votes"
    __table_args__ = (
        Index("ix_standing_rater", "rater", "vote_id"),
        Index("ix_standing_rater_kind", "rater", "kind", "vote_id"),
        Index("ix_standing_kind", "kind", "vote_id"),
        Index("ix_standing_item_rater", "item_id", "rater", "vote_id"),
    )
    vote_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(Integer)
    rater: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    low: Mapped[int | None] = mapped_column(Integer)
    high: Mapped[int | None] = mapped_column(Integer)
    said: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None] = mapped_column(Float(53))


class StandingUndoRow(Base):
    """An undo that stands, and the entry that it takes back."""

    __tablename__ = "standing_undos"
    vote_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    undoes: Mapped[int] = mapped_column(Integer, index=True)


class TallyRow(Base):
    """How often a rater said one thing; `seconds` is their exact sum, a fraction in digits.

    `answer` is a comparison's preference ("" for other kinds); `first_won` is 1 where the segment
    shown first won, 0 where the other did, and -1 where there is no winner or no order.
    """

    __tablename__ = "tallies"
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    answer: Mapped[str] = mapped_column(Text, primary_key=True)
    first_won: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    num: Mapped[int] = mapped_column(Integer)
    num_undone: Mapped[int] = mapped_column(Integer)
    num_timed: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[str] = mapped_column(Text)


class RaterRow(Base):
    """Everybody who has an entry, and on how many items a vote of theirs stands."""

    __tablename__ = "raters"
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    num_answered: Mapped[int] = mapped_column(Integer)


class RunRow(Base):
    """Items `first` to `last`, all answered by a rater; the items on both sides of it are open."""

    __tablename__ = "answered_runs"
    __table_args__ = (Index("ix_answered_runs_last", "rater", "last"),)
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    first: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(Integer)


class AnswerRow(Base):
    """An offer that is answered: by `num_said` standing votes of its kind, or `num_passed` skips."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_item", "item_id", "annotator_id"),)
    offer_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(Integer)
    annotator_id: Mapped[int] = mapped_column(Integer)
    is_work: Mapped[int] = mapped_column(Integer)
    num_said: Mapped[int] = mapped_column(Integer)
    num_passed: Mapped[int] = mapped_column(Integer)


class LeaseRow(Base):
    """An offer in somebody's hands: not answered, not released, not yet seen to be expired."""

    __tablename__ = "leases"
    __table_args__ = (Index("ix_leases_annotator", "annotator_id", "offer_id"),)
    offer_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(Integer, index=True)
    annotator_id: Mapped[int] = mapped_column(Integer)
    is_work: Mapped[int] = mapped_column(Integer)
    made: Mapped[float] = mapped_column(Float(53), index=True)
    expires: Mapped[float] = mapped_column(Float(53), index=True)


class OpenItemRow(Base):
    """An item that may be offered. Spots run from 1 without gaps, so that one is chosen blindly."""

    __tablename__ = "open_items"
    __table_args__ = (Index("ix_open_items_since", "since", "spot"),)
    spot: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(Integer, unique=True)
    since: Mapped[float] = mapped_column(Float(53))


class AnnotatorStateRow(Base):
    """How many offers a person had, and how many open items they hold or answered."""

    __tablename__ = "annotator_states"
    annotator_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    turn: Mapped[int] = mapped_column(Integer)
    num_blocked: Mapped[int] = mapped_column(Integer)


class PoolRow(Base):
    """One row: the last item that the pool knows, and how many items have all wanted votes."""

    __tablename__ = "pool"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    through: Mapped[int] = mapped_column(Integer)
    num_done: Mapped[int] = mapped_column(Integer)
    overlap: Mapped[int] = mapped_column(Integer)
