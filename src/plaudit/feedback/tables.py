"""The schema of the feedback log, version 2, in tables whose rows are only ever appended.

The log is `items`, `segments`, `votes`, `offers` and `releases`. Ids are given by the store under
its write lock, not by the database, so that a rolled back transaction leaves no gap and a rerun
ends in the same ids on SQLite and PostgreSQL alike. `annotators`, `invitations`, `sessions` and
`settings` hold who may enter and how work is given out: they change, and no feedback is in them.
What is derived from the log is in `derived_tables.py`. `plaudit_feedback` holds the schema version
and how far the derived tables go.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 2


class Base(DeclarativeBase):
    pass


class MetaRow(Base):
    __tablename__ = "plaudit_feedback"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class ItemRow(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, unique=True)
    prompt: Mapped[Any] = mapped_column(JSON)
    columns: Mapped[Any] = mapped_column(JSON)


class SegmentRow(Base):
    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("item_id", "position"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Text)
    text: Mapped[Any] = mapped_column(JSON)
    model: Mapped[str | None] = mapped_column(Text)
    extra: Mapped[Any] = mapped_column(JSON)


class VoteRow(Base):
    """An entry; `offer` is what it answers, none where a rule or a file said it."""

    __tablename__ = "votes"
    __table_args__ = (
        Index(
            "ix_votes_offer",
            "offer",
            sqlite_where=text("offer IS NOT NULL"),
            postgresql_where=text("offer IS NOT NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, unique=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    rater: Mapped[str] = mapped_column(Text, index=True)
    kind: Mapped[str] = mapped_column(Text)
    value: Mapped[Any] = mapped_column(JSON)
    shown: Mapped[Any] = mapped_column(JSON)
    seconds: Mapped[float | None] = mapped_column(Float(53))
    time: Mapped[float] = mapped_column(Float(53))
    undoes: Mapped[int | None] = mapped_column(ForeignKey("votes.id"))
    offer: Mapped[int | None] = mapped_column(ForeignKey("offers.id"))
    visible_seconds: Mapped[float | None] = mapped_column(Float(53))


class AnnotatorRow(Base):
    """Somebody who may enter. `name` is the rater of their votes; `keys` are their remapped keys."""

    __tablename__ = "annotators"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(Text)
    lang: Mapped[str] = mapped_column(Text)
    paused: Mapped[bool] = mapped_column(Boolean)
    created: Mapped[float] = mapped_column(Float(53))
    keys: Mapped[Any] = mapped_column(JSON)
    letters: Mapped[bool] = mapped_column(Boolean)


class InvitationRow(Base):
    """A way in, used once: the SHA-256 of its token, which is kept nowhere."""

    __tablename__ = "invitations"
    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), index=True)
    made: Mapped[float] = mapped_column(Float(53))
    expires: Mapped[float] = mapped_column(Float(53))
    used_at: Mapped[float | None] = mapped_column(Float(53))


class SessionRow(Base):
    """An entry in use, by the SHA-256 of its token; one of an API (`lasting`) ends only when told."""

    __tablename__ = "sessions"
    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), index=True)
    lasting: Mapped[bool] = mapped_column(Boolean)
    created: Mapped[float] = mapped_column(Float(53))
    last_seen: Mapped[float] = mapped_column(Float(53))
    ended: Mapped[float | None] = mapped_column(Float(53))


class SettingRow(Base):
    """How work is given out; one row for each kind of setting."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class OfferRow(Base):
    """An item shown to somebody until `expires`: what was asked, in which order, and why this one.

    `turn` counts the offers of a person. `propensity` is the probability with which this draw
    would give this item, among `eligible` ones; a repeat has none.
    """

    __tablename__ = "offers"
    __table_args__ = (
        UniqueConstraint("annotator_id", "turn"),
        Index(
            "ix_offers_repeats",
            "annotator_id",
            "id",
            sqlite_where=text("purpose = 'repeat'"),
            postgresql_where=text("purpose = 'repeat'"),
        ),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, unique=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    turn: Mapped[int] = mapped_column(Integer)
    ask: Mapped[str] = mapped_column(Text)
    shown: Mapped[Any] = mapped_column(JSON)
    purpose: Mapped[str] = mapped_column(Text)
    policy: Mapped[str] = mapped_column(Text)
    propensity: Mapped[float | None] = mapped_column(Float(53))
    eligible: Mapped[int] = mapped_column(Integer)
    made: Mapped[float] = mapped_column(Float(53))
    expires: Mapped[float] = mapped_column(Float(53))


class ReleaseRow(Base):
    """An offer given back unanswered."""

    __tablename__ = "releases"
    offer_id: Mapped[int] = mapped_column(ForeignKey("offers.id"), primary_key=True)
    why: Mapped[str] = mapped_column(Text)
    time: Mapped[float] = mapped_column(Float(53))


LOG = frozenset(
    row.__tablename__
    for row in (
        MetaRow, ItemRow, SegmentRow, VoteRow, OfferRow, ReleaseRow, AnnotatorRow, InvitationRow,
        SessionRow, SettingRow,
    )
)  # fmt: skip
"""The tables that nothing can make anew; all others are derived from them."""
