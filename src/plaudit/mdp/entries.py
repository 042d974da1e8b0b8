"""Transitions gathered one by one into a world, with the checks that all builders share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from plaudit.mdp.checks import SUM_TOLERANCE
from plaudit.mdp.layout import paid_rows
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_text

Floats: TypeAlias = NDArray[np.float64]


@dataclass
class Entries:
    """Transitions as they come in: (s, a) → s' → [probability, probability · reward]."""

    rows: dict[tuple[int, int], dict[int, list[float]]] = field(default_factory=dict)

    def add(self, state: int, action: int, to: int, probability: float, reward: float) -> None:
        """Adds one way to get from `state` to `to`."""
        into = self.rows.setdefault((state, action), {})
        held = into.setdefault(to, [0.0, 0.0])
        held[0] += probability
        held[1] += probability * reward

    def world(self, num_states: int, num_actions: int, gamma: float, **names: Any) -> MDP:
        """The MDP of what was added; states without an action become ends."""
        acting = {s for s, _ in self.rows}
        missing = np.zeros(num_states * num_actions, np.bool_)
        p: list[float] = []
        paid: list[float] = []
        to: list[int] = []
        indptr = [0]
        for s in range(num_states):
            for a in range(num_actions):
                if s not in acting:
                    into = {s: [1.0, 0.0]}
                else:
                    into = self.rows.get((s, a), {})
                for t, (probability, total) in sorted(into.items()):
                    if probability > 0:
                        p.append(probability)
                        paid.append(total / probability)
                        to.append(t)
                missing[s * num_actions + a] = not into
                indptr.append(len(p))
        rows = sparse.csr_array((p, to, indptr), shape=(missing.size, num_states))
        return MDP(rows, paid_rows(rows, paid, missing), gamma, **names)


def probability_of(given: Any, where: str) -> float:
    """A number from 0 to 1, or a UserError that says where it stands."""
    number = number_of(given, f"{where}: probability")
    if not 0 <= number <= 1:
        raise UserError(f"{where}: probability {given!r}; expected a number from 0 to 1")
    return number


def number_of(given: Any, what: str) -> float:
    """A finite float, or a UserError that says what it is."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise UserError(f"{what} {given!r} is not a number") from None
    if not math.isfinite(number):
        raise UserError(f"{what} is {number}; expected a finite number")
    return number


def check_sum(pairs: Sequence[tuple[float, Any]], where: str) -> None:
    """Raises UserError unless the probabilities, which stand first, sum to one (or there are none)."""
    total = math.fsum(probability for probability, _ in pairs)
    if pairs and abs(total - 1) > SUM_TOLERANCE:
        raise UserError(f"{where}: probabilities sum to {total:.10g}, not 1")


def initial_of(given: Any, number: Mapping[Any, int]) -> NDArray[np.float64] | None:
    """[S] of a state or of {state: probability}; None leaves the choice to the MDP."""
    if given is None:
        return None
    shares = given if isinstance(given, Mapping) else {given: 1.0}
    begin = np.zeros(len(number))
    for state, probability in shares.items():
        if state not in number:
            hint = nearest(str(state), map(str, number))
            raise UserError(f"initial: {state!r} is not one of the states{hint}")
        begin[number[state]] = probability_of(probability, f"initial: state {state!r}")
    return begin


def names_of(number: Mapping[Any, int]) -> list[str] | None:
    """Texts of the states or actions; none where they are their own numbers."""
    if all(str(thing) == str(i) for thing, i in number.items()):
        return None
    said = [str(thing) for thing in number]
    return said if len(set(said)) == len(said) else [repr(thing) for thing in number]


def in_order(things: Iterable[Any]) -> dict[Any, int]:
    """Each thing's number: its own if they are 0, 1, 2, ..., else the order in which they come."""
    order = list(dict.fromkeys(things))
    try:
        own = sorted(int(str(thing)) for thing in order)
    except ValueError:
        own = []
    if own == list(range(len(order))):
        return dict(sorted(((thing, int(str(thing))) for thing in order), key=lambda pair: pair[1]))
    return {thing: i for i, thing in enumerate(order)}


def existing_file(given: str | Path) -> Path:
    """The path of a file that is there; UserError with the nearest name beside it."""
    path = Path(given)
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"no file {path}{nearest(path.name, near)}")
    return path


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, value) of each line that is not empty; UserError where one is not JSON."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None
