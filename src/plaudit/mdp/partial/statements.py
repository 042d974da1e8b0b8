"""What the statements of a .pomdp file say, gathered into sparse tables.

Entries are laid over one another in the order of the file: of two for the same place the later
holds. Wildcards of T and O are spread at once; those of R are applied at the end, to the places
that can happen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from plaudit.mdp.partial.model import Floats
from plaudit.records.errors import UserError, nearest


class Names(NamedTuple):
    """The states, actions or observations of a file."""

    kind: str
    size: int
    names: tuple[str, ...] | None

    def number(self, text: str) -> int:
        """The number of a name or numeral; -1 for *. UserError otherwise."""
        if text == "*":
            return -1
        if re.fullmatch(r"\d+", text):
            if int(text) >= self.size:
                raise UserError(f"{text} of the {self.kind}; expected 0 to {self.size - 1}")
            return int(text)
        if self.names is None or text not in self.names:
            hint = nearest(text, self.names or ())
            raise UserError(f"{text!r} is not among the {self.kind}{hint}")
        return self.names.index(text)

    def said(self, number: int) -> str:
        """A number with its name."""
        return f"{number}" if self.names is None else f"{number} ({self.names[number]})"


class Reward(NamedTuple):
    """R: action : state : next state : observation value; -1 is *."""

    action: int
    state: int
    after: int
    observation: int
    value: float


class Tables:
    """T and O as dictionaries of rows, in the making."""

    def __init__(self, num_states: int, num_actions: int, num_observations: int) -> None:
        self.num_states, self.num_actions = num_states, num_actions
        self.width = {"T": num_states, "O": num_observations}
        self.rows: dict[str, dict[int, dict[int, float]]] = {"T": {}, "O": {}}
        self.lines: dict[tuple[str, int], int] = {}

    def places(self, action: int, state: int) -> list[int]:
        """Rows s·A + a that (action, state) means, -1 being all."""
        actions = range(self.num_actions) if action < 0 else (action,)
        states = range(self.num_states) if state < 0 else (state,)
        return [s * self.num_actions + a for s in states for a in actions]

    def put_transition(self, action: int, state: int, given: Floats, line: int) -> None:
        """Whole rows of T: `given` is [1, S] for one state (or *), [S, S] for all."""
        self._put_rows("T", action, state, given, line)

    def put_observation(self, action: int, state: int, given: Floats, line: int) -> None:
        """Whole rows of O: `given` is [1, Ω] for one state (or *), [S, Ω] for all."""
        self._put_rows("O", action, state, given, line)

    def _put_rows(self, letter: str, action: int, state: int, given: Floats, line: int) -> None:
        many = given.shape[0] > 1
        kept = [{int(k): float(row[k]) for k in np.flatnonzero(row)} for row in given]
        for place in self.places(action, state):
            chosen = kept[place // self.num_actions] if many else kept[0]
            self.rows[letter][place] = dict(chosen)
            self.lines[letter, place] = line

    def put_entry(
        self, letter: str, action: int, state: int, target: int, p: float, line: int
    ) -> None:
        """One entry, or one for each of a wildcard."""
        targets = range(self.width[letter]) if target < 0 else (target,)
        for place in self.places(action, state):
            row = self.rows[letter].setdefault(place, {})
            for to in targets:
                row[to] = p
            self.lines[letter, place] = line

    def line_of(self, letter: str, action: int, state: int) -> int | None:
        """Where a row was last written."""
        return self.lines.get((letter, state * self.num_actions + action))

    def transition(self) -> sparse.csr_array:
        """[S·A, S]."""
        return self._matrix("T")

    def observation(self) -> sparse.csr_array:
        """[S·A, Ω]."""
        return self._matrix("O")

    def _matrix(self, letter: str) -> sparse.csr_array:
        count = self.num_states * self.num_actions
        indptr, indices, data = [0], list[int](), list[float]()
        for place in range(count):
            row = self.rows[letter].get(place, {})
            for column in sorted(row):
                if row[column] > 0:
                    indices.append(column)
                    data.append(row[column])
            indptr.append(len(indices))
        shape = (count, self.width[letter])
        return sparse.csr_array((np.array(data), np.array(indices, np.int64), indptr), shape=shape)


def expected_reward(
    rewards: Sequence[Reward],
    transition: sparse.csr_array,
    observation: sparse.csr_array,
    num_actions: int,
) -> Floats:
    """R(s, a) = Σ_s' T(s'|s, a) Σ_o O(o|a, s') r(s, a, s', o) as [S, A]."""
    num_states = transition.shape[1]
    if all(r.after < 0 and r.observation < 0 for r in rewards):
        paid = np.zeros((num_states, num_actions))
        for r in rewards:
            paid[_all(r.state), _all(r.action)] = r.value
        return paid
    events = _Events(transition, observation, num_actions)
    for r in rewards:
        events.pay(r)
    return events.expected()


def _all(number: int) -> slice:
    return slice(None) if number < 0 else slice(number, number + 1)


class _Events:
    """Every (s, a, s', o) that can happen, in order of row s·A + a, with what it pays."""

    def __init__(
        self, transition: sparse.csr_array, observation: sparse.csr_array, num_actions: int
    ) -> None:
        self.shape = (transition.shape[1], num_actions)
        row = np.repeat(np.arange(transition.shape[0]), np.diff(transition.indptr))
        after = transition.indices.astype(np.int64)
        place = after * num_actions + row % num_actions
        counts = np.diff(observation.indptr)[place]
        offset = np.repeat(np.cumsum(counts) - counts, counts)
        entry = np.arange(int(counts.sum())) - offset + np.repeat(observation.indptr[place], counts)
        self.row, self.after = np.repeat(row, counts), np.repeat(after, counts)
        self.observation = observation.indices[entry]
        self.p = np.repeat(transition.data, counts) * observation.data[entry]
        self.value = np.zeros(self.p.size)
        self.begin = np.searchsorted(self.row, np.arange(transition.shape[0] + 1))

    def pay(self, reward: Reward) -> None:
        """Lay one statement over those before it."""
        num_states, num_actions = self.shape
        first, last = 0, num_states * num_actions
        if reward.state >= 0:
            first, last = reward.state * num_actions, (reward.state + 1) * num_actions
            if reward.action >= 0:
                first, last = first + reward.action, first + reward.action + 1
        part = slice(int(self.begin[first]), int(self.begin[last]))
        meant = np.ones(part.stop - part.start, np.bool_)
        if reward.action >= 0:
            meant &= self.row[part] % num_actions == reward.action
        if reward.after >= 0:
            meant &= self.after[part] == reward.after
        if reward.observation >= 0:
            meant &= self.observation[part] == reward.observation
        self.value[part][meant] = reward.value

    def expected(self) -> Floats:
        """[S, A]."""
        num_states, num_actions = self.shape
        weight = self.p * self.value
        total = np.bincount(self.row, weights=weight, minlength=num_states * num_actions)
        return np.asarray(total.reshape(num_states, num_actions), dtype=np.float64)
