"""Cassandra's .pomdp files, read and written.

The reader takes the whole grammar: the preamble in any order, `start` in its six forms, T, O and R
by entry, row or matrix, with names, numbers and *, `identity`, `uniform`, `reset`, costs and
comments. A later line overrides an earlier one for the same entry. Files print probabilities to a
few digits, so a row that sums to one within 1e-5 is divided by its sum; any other is an error with
its file and line.

Source of the format: A. R. Cassandra, "POMDP File Format" and "POMDP File Grammar", pomdp.org.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from plaudit.mdp.checks import SUM_TOLERANCE
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.statements import Names, Reward, Tables, expected_reward
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_text

PRINTED = 1e-5
"""How far from one the sum of a row may be that was printed to six digits."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NAME = re.compile(r"[A-Za-z_][\w.\-]*")
KEYWORDS = ("discount", "values", "states", "actions", "observations", "start", "T", "O", "R")
PREAMBLE = KEYWORDS[:5]


class Token(NamedTuple):
    text: str
    line: int


def read_pomdp(path: str | Path) -> POMDP:
    """The world in a .pomdp file. UserError with file and line for what is not in the grammar."""
    return parse_pomdp(read_text(Path(path)), str(path))


def parse_pomdp(text: str, name: str = "text") -> POMDP:
    """The world that the text of a .pomdp file describes; `name` stands in messages."""
    return _Reader(_tokens(text), name).world()


def _tokens(text: str) -> list[Token]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].replace(":", " : ")
        found += [Token(word, number) for word in content.split()]
    return found


class _Reader:
    """One pass over the tokens; `at` is the next one."""

    def __init__(self, tokens: list[Token], name: str) -> None:
        self.tokens, self.name, self.at = tokens, name, 0
        self.discount: float | None = None
        self.cost: bool | None = None
        self.names: dict[str, Names] = {}
        self.start: Floats | None = None
        self.rewards: list[Reward] = []
        self.tables: Tables | None = None

    # --- tokens

    def fail(self, message: str, line: int | None = None) -> UserError:
        last = self.tokens[min(self.at, len(self.tokens) - 1)].line if self.tokens else 1
        return UserError(f"{self.name}:{line or last}: {message}")

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def take(self, what: str) -> Token:
        if self.at >= len(self.tokens):
            raise self.fail(f"the file ends where {what} was expected")
        self.at += 1
        return self.tokens[self.at - 1]

    def colon(self) -> None:
        token = self.take("':'")
        if token.text != ":":
            raise self.fail(f"{token.text!r} where ':' was expected", token.line)

    def heading(self) -> bool:
        """The next tokens begin a statement."""
        if self.peek() == "start":
            return self.peek(1) == ":" or self.peek(1) in ("include", "exclude")
        return self.peek() in KEYWORDS and self.peek(1) == ":"

    def number(self, what: str) -> float:
        token = self.take(what)
        text = token.text
        if text in ("+", "-"):  # the grammar lets the sign stand apart
            text += self.take(what).text
        if not NUMBER.fullmatch(text):
            raise self.fail(f"{text!r} where {what} was expected", token.line)
        return float(text)

    def numbers(self, count: int, what: str) -> Floats:
        """Exactly `count` numbers up to the next statement."""
        line = self.tokens[min(self.at, len(self.tokens) - 1)].line
        found = []
        while self.at < len(self.tokens) and not self.heading():
            found.append(self.number(f"a number of {what}"))
        if len(found) != count:
            raise self.fail(f"{len(found)} numbers for {what}; expected {count}", line)
        return np.array(found)

    # --- statements

    def world(self) -> POMDP:
        while self.at < len(self.tokens):
            if not self.heading():
                text = self.peek()
                raise self.fail(
                    f"{text!r} begins no statement{nearest(text, KEYWORDS)}; "
                    f"expected one of {', '.join(KEYWORDS)} and ':'"
                )
            word = self.take("a statement")
            if word.text in PREAMBLE:
                self.preamble(word)
            elif word.text == "start":
                self.starting(word)
            else:
                self.table(word)
        self.require()
        return self.finished()

    def preamble(self, word: Token) -> None:
        self.colon()
        known = self.names.get(word.text) or {
            "discount": self.discount,
            "values": self.cost,
        }.get(word.text)
        if known is not None:
            raise self.fail(f"{word.text!r} stands twice", word.line)
        if self.tables is not None:
            raise self.fail(f"{word.text!r} stands after T, O or R; expected before", word.line)
        if word.text == "discount":
            self.discount = self.number("the discount")
            if not 0 <= self.discount <= 1:
                raise self.fail(f"discount {self.discount}; expected 0 to 1", word.line)
        elif word.text == "values":
            token = self.take("'reward' or 'cost'")
            if token.text not in ("reward", "cost"):
                raise self.fail(f"values: {token.text!r}; expected 'reward' or 'cost'", token.line)
            self.cost = token.text == "cost"
        else:
            self.names[word.text] = self.named(word)

    def named(self, word: Token) -> Names:
        """`states: 4`, or a list of names."""
        if re.fullmatch(r"\d+", self.peek()):
            count = int(self.take("a count").text)
            if count < 1:
                raise self.fail(f"{word.text}: 0; expected at least one", word.line)
            return Names(word.text, count, None)
        found: list[str] = []
        while self.at < len(self.tokens) and not self.heading():
            token = self.take("a name")
            if not NAME.fullmatch(token.text):
                raise self.fail(f"{word.text}: {token.text!r} is not a name", token.line)
            if token.text in found:
                raise self.fail(f"{word.text}: {token.text!r} stands twice", token.line)
            found.append(token.text)
        if not found:
            raise self.fail(f"{word.text}: a count or names were expected", word.line)
        return Names(word.text, len(found), tuple(found))

    def require(self) -> None:
        for word in PREAMBLE:
            have = {"discount": self.discount, "values": self.cost}.get(word, self.names.get(word))
            if have is None:
                raise self.fail(f"no '{word}:' before the tables; all of the preamble is needed")

    def one(self, kind: str) -> int:
        """An action, state or observation by name or number; -1 for *."""
        token = self.take(f"one of the {kind}")
        try:
            return self.names[kind].number(token.text)
        except UserError as error:
            raise self.fail(str(error), token.line) from None

    def starting(self, word: Token) -> None:
        if "states" not in self.names:
            raise self.fail("'start' stands before 'states'", word.line)
        count = self.names["states"].size
        if self.start is not None:
            raise self.fail("'start' stands twice", word.line)
        if self.peek() in ("include", "exclude"):
            how = self.take("include or exclude").text
            self.colon()
            listed = np.zeros(count, np.bool_)
            while self.at < len(self.tokens) and not self.heading():
                listed[self.one("states")] = True
            chosen = listed if how == "include" else ~listed
            if not chosen.any() or not listed.any():
                raise self.fail(f"start {how}: no state is left to start in", word.line)
            self.start = chosen / chosen.sum()
            return
        self.colon()
        ending = self.at + 1 >= len(self.tokens)
        self.at += 1
        alone = ending or self.heading()
        self.at -= 1
        if self.peek() == "uniform":
            self.take("uniform")
            self.start = np.full(count, 1 / count)
        elif alone and (count > 1 or not NUMBER.fullmatch(self.peek())):
            self.start = np.zeros(count)
            self.start[self.one("states")] = 1.0
        else:
            given = self.numbers(count, "start")
            self.start = self.summed(given[None], word.line, "start")[0]

    def summed(self, rows: Floats, line: int, what: str) -> Floats:
        """Rows of probabilities, those that were printed to a few digits divided by their sums."""
        if (rows < 0).any() or (rows > 1 + PRINTED).any():
            wrong = rows[(rows < 0) | (rows > 1 + PRINTED)][0]
            raise self.fail(f"{what}: {wrong:.6g} is not a probability", line)
        sums = rows.sum(1)
        if (np.abs(sums - 1) > PRINTED).any():
            wrong = sums[np.abs(sums - 1) > PRINTED][0]
            raise self.fail(f"{what}: probabilities sum to {wrong:.8g}, not 1", line)
        off = np.abs(sums - 1) > SUM_TOLERANCE
        return np.asarray(np.where(off[:, None], rows / sums[:, None], rows))

    def table(self, word: Token) -> None:
        self.require()
        if self.tables is None:
            sizes = (self.names[kind].size for kind in ("states", "actions", "observations"))
            self.tables = Tables(*sizes)
        self.colon()
        if word.text == "R":
            self.reward()
        else:
            self.probability(word)

    def probability(self, word: Token) -> None:
        """T: a [: s [: s']] or O: a [: s' [: o]], then one number, a row or a matrix."""
        assert self.tables is not None
        to = "states" if word.text == "T" else "observations"
        put = self.tables.put_transition if word.text == "T" else self.tables.put_observation
        action = self.one("actions")
        if self.peek() != ":":
            put(action, -1, self.matrix(word, to), word.line)
            return
        self.colon()
        state = self.one("states")
        if self.peek() != ":":
            put(action, state, self.row(word, to)[None], word.line)
            return
        self.colon()
        target = self.one(to)
        p = self.number("a probability")
        if not 0 <= p <= 1 + PRINTED:
            raise self.fail(f"{word.text}: {p:.6g} is not a probability", word.line)
        self.tables.put_entry(word.text, action, state, target, p, word.line)

    def row(self, word: Token, to: str) -> Floats:
        count = self.names[to].size
        if self.peek() == "uniform":
            self.take("uniform")
            return np.full(count, 1 / count)
        if self.peek() == "reset" and word.text == "T":
            self.take("reset")
            if self.start is None:
                raise self.fail("'reset' needs a 'start' before it", word.line)
            return self.start
        given = self.numbers(count, f"a row of {word.text}")
        row: Floats = self.summed(given[None], word.line, word.text)[0]
        return row

    def matrix(self, word: Token, to: str) -> Floats:
        rows, columns = self.names["states"].size, self.names[to].size
        if self.peek() == "identity":
            token = self.take("identity")
            if word.text != "T":
                raise self.fail("'identity' is for T alone", token.line)
            return np.eye(rows)
        if self.peek() in ("uniform", "reset"):
            return np.tile(self.row(word, to), (rows, 1))
        given = self.numbers(rows * columns, f"a matrix of {word.text}")
        return self.summed(given.reshape(rows, columns), word.line, word.text)

    def reward(self) -> None:
        """R: a : s [: s' [: o]], then one number, a row over o, or a matrix over s' and o."""
        states, seen = self.names["states"].size, self.names["observations"].size
        action = self.one("actions")
        self.colon()
        state = self.one("states")
        if self.peek() != ":":
            values = self.numbers(states * seen, "a matrix of R").reshape(states, seen)
            self.rewards += [
                Reward(action, state, after, o, values[after, o])
                for after in range(states)
                for o in range(seen)
            ]
            return
        self.colon()
        after = self.one("states")
        if self.peek() != ":":
            values = self.numbers(seen, "a row of R")
            self.rewards += [Reward(action, state, after, o, values[o]) for o in range(seen)]
            return
        self.colon()
        observation = self.one("observations")
        self.rewards.append(Reward(action, state, after, observation, self.number("a reward")))

    # --- the world

    def finished(self) -> POMDP:
        if self.tables is None:
            raise self.fail("no T, O or R follows the preamble")
        transition = self.completed("T", self.tables.transition())
        observation = self.completed("O", self.tables.observation())
        names = [self.names[kind] for kind in ("states", "actions", "observations")]
        reward = expected_reward(self.rewards, transition, observation, names[1].size)
        assert self.discount is not None
        return POMDP(
            transition,
            observation,
            -reward + 0.0 if self.cost else reward,
            self.discount,
            initial=np.full(names[0].size, 1 / names[0].size) if self.start is None else self.start,
            states=names[0].names,
            actions=names[1].names,
            observations=names[2].names,
        )

    def completed(self, letter: str, rows: sparse.csr_array) -> sparse.csr_array:
        """Rows that sum to one within what printing loses, made to sum to one exactly."""
        assert self.tables is not None
        sums = np.asarray(rows.sum(axis=1)).ravel()
        wrong = np.flatnonzero(np.abs(sums - 1) > PRINTED)
        if wrong.size:
            state, action = divmod(int(wrong[0]), self.names["actions"].size)
            a = self.names["actions"].said(action)
            s = self.names["states"].said(state)
            line = self.tables.line_of(letter, action, state)
            raise self.fail(
                f"{letter}: action {a}, state {s}: probabilities sum to {sums[wrong[0]]:.8g}, not 1",
                line,
            )
        off = np.repeat(np.where(np.abs(sums - 1) > SUM_TOLERANCE, sums, 1.0), np.diff(rows.indptr))
        return sparse.csr_array((rows.data / off, rows.indices, rows.indptr), shape=rows.shape)


def write_pomdp(pomdp: POMDP, path: str | Path) -> None:
    """A world as a .pomdp file, each number so that reading gives the same float back."""
    try:
        Path(path).write_text(pomdp_text(pomdp), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def pomdp_text(pomdp: POMDP) -> str:
    """The text of a world's .pomdp file, entry by entry; rewards as E[r | s, a]."""
    states = _listed(pomdp.states, pomdp.num_states)
    actions = _listed(pomdp.actions, pomdp.num_actions)
    seen = _listed(pomdp.observations, pomdp.num_observations)
    lines = [
        f"discount: {_exact(pomdp.gamma)}",
        "values: reward",
        f"states: {' '.join(states) if pomdp.states else pomdp.num_states}",
        f"actions: {' '.join(actions) if pomdp.actions else pomdp.num_actions}",
        f"observations: {' '.join(seen) if pomdp.observations else pomdp.num_observations}",
        f"start: {' '.join(_exact(p) for p in pomdp.initial)}",
    ]
    for letter, table, to in (("T", pomdp.transition, states), ("O", pomdp.observation, seen)):
        entries = table.tocoo()
        for row, column, p in zip(entries.row, entries.col, entries.data, strict=True):
            s, a = divmod(int(row), pomdp.num_actions)
            lines.append(f"{letter}: {actions[a]} : {states[s]} : {to[column]} {_exact(p)}")
    for s, a in np.argwhere(pomdp.reward != 0):
        lines.append(f"R: {actions[a]} : {states[s]} : * : * {_exact(pomdp.reward[s, a])}")
    return "\n".join(lines) + "\n"


def _exact(number: float) -> str:
    return repr(float(number))


def _listed(names: tuple[str, ...] | None, count: int) -> list[str]:
    if names is None:
        return [str(number) for number in range(count)]
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(
                f"the name {name!r} cannot stand in a .pomdp file; expected a letter, then letters, "
                "digits, '_', '-' or '.'"
            )
    return list(names)
