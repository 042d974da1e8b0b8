"""Who may enter: annotators by name and role, invitations used once, sessions that can be ended.

Tokens are 256 bits from the system and are kept as their SHA-256 only; nothing signed, so that
everything can be taken back. Nobody is deleted: a person is paused, or their name is replaced by a
pseudonym, wherever the store holds it, and their votes stay.
"""

from __future__ import annotations

import hashlib
import secrets
import time as clock
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from plaudit.feedback.derived_tables import RaterRow, RunRow, StandingRow, TallyRow
from plaudit.feedback.entries import canonical, check_name
from plaudit.feedback.log import Log
from plaudit.feedback.offers import Offers
from plaudit.feedback.tables import AnnotatorRow, InvitationRow, SessionRow, VoteRow
from plaudit.records.errors import UserError, nearest

ROLES = ("admin", "annotator", "viewer")
LANGUAGES = ("en", "zh")
LONGEST_NAME = 100
IDLE_SECONDS = 14 * 86_400.0
"""A session that nobody used for so long has ended (a token of `bearer` does not)."""
SEEN_SECONDS = 60.0
"""`last_seen` is written at most so often."""
_DAY = 86_400.0

_SESSION = (
    select(AnnotatorRow.__table__, SessionRow.last_seen, SessionRow.lasting)
    .join(SessionRow, SessionRow.annotator_id == AnnotatorRow.id)
    .where(SessionRow.ended.is_(None))
)


@dataclass(frozen=True)
class Annotator:
    """Somebody who may enter. `keys` are remapped keys by act; `letters` is off without them."""

    id: int
    name: str
    role: str
    lang: str
    paused: bool
    created: float
    keys: Mapping[str, str] = field(default_factory=dict)
    letters: bool = True


class People:
    """The annotators of a store, their invitations and sessions."""

    def __init__(self, store: Log, offers: Offers) -> None:
        self._store, self._offers = store, offers

    # --- who there is ----------------------------------------------------------------------

    def add(self, name: str, *, role: str = "annotator", lang: str = "en") -> Annotator:
        """A new person. Errors: a name that is taken or cannot be kept, an unknown role."""
        with self._store.batch(), self._connection() as connection:
            if _named(connection, name) is not None:
                raise UserError(f"there is somebody called {name!r} already; choose another name")
            return _add(connection, name, role, lang)

    def annotators(self) -> list[Annotator]:
        """Everybody, in the order in which they were added."""
        with self._connection() as connection:
            query = select(AnnotatorRow.__table__).order_by(AnnotatorRow.id)
            return [_annotator(row) for row in connection.execute(query)]

    def named(self, name: str) -> Annotator:
        """The person of this name; UserError where there is none."""
        with self._connection() as connection:
            return _required(connection, name)

    def last_seen(self) -> dict[str, float]:
        """When each person who ever entered was last seen, seconds since 1970."""
        seen = func.max(SessionRow.last_seen)
        query = select(AnnotatorRow.name, seen).join(
            SessionRow, SessionRow.annotator_id == AnnotatorRow.id
        )
        with self._connection() as connection:
            rows = connection.execute(query.group_by(AnnotatorRow.name))
            return {row[0]: row[1] for row in rows}

    def set(
        self,
        name: str,
        *,
        lang: str | None = None,
        keys: Mapping[str, str] | None = None,
        letters: bool | None = None,
    ) -> Annotator:
        """Change what is given: the language, the remapped keys, whether letters are keys."""
        changes: dict[str, Any] = {}
        if lang is not None:
            changes["lang"] = _known(lang, LANGUAGES, "the language")
        if keys is not None:
            changes["keys"] = _keys(keys)
        if letters is not None:
            changes["letters"] = bool(letters)
        return self._change(name, changes)

    def pause(self, name: str, paused: bool) -> Annotator:
        """Give somebody no more work, and give back what they hold; or let them go on."""
        with self._store.batch():
            annotator = self._change(name, {"paused": bool(paused)})
            if paused:
                self._offers.release_all(name, why="paused")
        return annotator

    def erase(self, name: str) -> Annotator:
        """Replace a name by a pseudonym, in the log too, and end all of the person's sessions.

        The only change that entries of the log ever see; the digest of the log changes with it.
        """
        pseudonym = f"erased-{secrets.token_hex(4)}"
        with self._store.batch(), self._connection() as connection:
            person = _required(connection, name)
            here = AnnotatorRow.id == person.id
            plain = {"name": pseudonym, "keys": {}, "paused": True}
            connection.execute(update(AnnotatorRow).where(here).values(**plain))
            for table in (VoteRow, StandingRow, TallyRow, RaterRow, RunRow):
                mine = table.rater == name
                connection.execute(update(table).where(mine).values(rater=pseudonym))
            now = clock.time()
            open_ = (SessionRow.annotator_id == person.id, SessionRow.ended.is_(None))
            connection.execute(update(SessionRow).where(*open_).values(ended=now))
            unused = (InvitationRow.annotator_id == person.id, InvitationRow.used_at.is_(None))
            connection.execute(update(InvitationRow).where(*unused).values(used_at=now))
            self._offers.release_all(pseudonym, why="erased")
            return _required(connection, pseudonym)

    # --- entering --------------------------------------------------------------------------

    def invite(self, name: str, *, role: str = "annotator", days: float = 7.0) -> str:
        """A token with which `name` may enter once, within `days`; makes the person if new."""
        if not 0 < days <= 3650:
            raise UserError(f"an invitation for {days} days; expected more than 0, at most 3650")
        token, now = secrets.token_urlsafe(32), clock.time()
        with self._store.batch(), self._connection() as connection:
            person = _named(connection, name)
            if person is None:
                person = _add(connection, name, role, "en")
            elif role not in ("annotator", person.role):
                raise UserError(f"{name!r} is there already with the role {person.role}")
            row = {"hash": _hash(token), "annotator_id": person.id, "made": now, "used_at": None}
            connection.execute(insert(InvitationRow), row | {"expires": now + days * _DAY})
        return token

    def enter(self, token: str) -> tuple[str, Annotator]:
        """A new session's token for an invitation's, which is used up by it."""
        now = clock.time()
        with self._store.batch(), self._connection() as connection:
            here = InvitationRow.hash == _hash(token)
            query = (
                select(
                    AnnotatorRow.__table__,
                    InvitationRow.expires.label("until"),
                    InvitationRow.used_at,
                )
                .join(InvitationRow, InvitationRow.annotator_id == AnnotatorRow.id)
                .where(here)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                raise UserError("this invitation is not known; ask for a new link")
            if row.used_at is not None:
                raise UserError("this invitation was used already; ask for a new link")
            if row.until <= now:
                raise UserError("this invitation has expired; ask for a new link")
            connection.execute(update(InvitationRow).where(here).values(used_at=now))
            return _new_session(connection, row.id, now, lasting=False), _annotator(row)

    def bearer(self, name: str) -> str:
        """A token for programs: a session that ends only by `leave`, or when the person is erased."""
        with self._store.batch(), self._connection() as connection:
            person = _required(connection, name)
            return _new_session(connection, person.id, clock.time(), lasting=True)

    def who(self, session_token: str, *, now: float | None = None) -> Annotator | None:
        """Whose session this is, or None; notes that they were seen, at most once a minute."""
        now = clock.time() if now is None else now
        here = SessionRow.hash == _hash(session_token)
        with self._connection() as connection:
            row = connection.execute(_SESSION.where(here)).one_or_none()
        if row is None or (not row.lasting and row.last_seen + IDLE_SECONDS <= now):
            return None
        if row.last_seen + SEEN_SECONDS <= now:
            with self._store.turn_if_free() as free:
                if free:  # else the next question notes it
                    with self._store.batch(), self._connection() as connection:
                        connection.execute(update(SessionRow).where(here).values(last_seen=now))
        return _annotator(row)

    def leave(self, session_token: str) -> None:
        """End a session; one that is not known, or has ended, stays as it is."""
        here = (SessionRow.hash == _hash(session_token), SessionRow.ended.is_(None))
        with self._store.batch(), self._connection() as connection:
            connection.execute(update(SessionRow).where(*here).values(ended=clock.time()))

    # --- inside ----------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._store.reading() as connection:
            yield connection

    def _change(self, name: str, changes: dict[str, Any]) -> Annotator:
        with self._store.batch(), self._connection() as connection:
            person = _required(connection, name)
            if changes:
                here = AnnotatorRow.id == person.id
                connection.execute(update(AnnotatorRow).where(here).values(**changes))
            return _required(connection, name)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _new_session(connection: Connection, person: int, now: float, *, lasting: bool) -> str:
    token = secrets.token_urlsafe(32)
    row = {"hash": _hash(token), "annotator_id": person, "lasting": lasting, "created": now}
    connection.execute(insert(SessionRow), row | {"last_seen": now, "ended": None})
    return token


def _add(connection: Connection, name: str, role: str, lang: str) -> Annotator:
    _check_person(name)
    _known(role, ROLES, "the role")
    _known(lang, LANGUAGES, "the language")
    row: dict[str, Any] = {
        "id": (connection.scalar(select(func.max(AnnotatorRow.id))) or 0) + 1, "name": name,
        "role": role, "lang": lang, "paused": False, "created": clock.time(), "keys": {},
        "letters": True,
    }  # fmt: skip
    connection.execute(insert(AnnotatorRow), row)
    return Annotator(**row)


def _check_person(name: str) -> None:
    check_name(name, "a person's name")
    if name != name.strip() or len(name) > LONGEST_NAME:
        raise UserError(
            f"a person's name is {name!r}, expected at most {LONGEST_NAME} letters and no space "
            "around them"
        )
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in name):
        raise UserError(f"a person's name is {name!r}, which holds letters that cannot be seen")


def _by_name(name: str) -> Select[Any]:
    return select(AnnotatorRow.__table__).where(AnnotatorRow.name == name)


def _named(connection: Connection, name: str) -> Annotator | None:
    check_name(name, "a person's name")
    row = connection.execute(_by_name(name)).one_or_none()
    return None if row is None else _annotator(row)


def _required(connection: Connection, name: str) -> Annotator:
    person = _named(connection, name)
    if person is None:
        names = connection.scalars(select(AnnotatorRow.name))
        raise UserError(f"there is nobody called {name!r}{nearest(name, names)}")
    return person


def _annotator(row: Any) -> Annotator:
    return Annotator(
        row.id, row.name, row.role, row.lang, bool(row.paused), row.created, row.keys,
        bool(row.letters),
    )  # fmt: skip


def _known(value: str, values: tuple[str, ...], what: str) -> str:
    if value not in values:
        hint = nearest(str(value), values)
        raise UserError(f"{what} is {value!r}, expected {', '.join(values)}{hint}")
    return value


def _keys(keys: Mapping[str, str]) -> dict[str, str]:
    """Remapped keys: short names of acts to short names of keys, and not many."""
    given: Any = canonical(dict(keys), "the keys")
    whole = all(
        isinstance(part, str) and 0 < len(part) <= 40 for pair in given.items() for part in pair
    )
    if len(given) > 64 or not whole:
        raise UserError("keys must map at most 64 acts to the names of keys")
    return dict(given)
