"""Numbers that change while learning: step sizes and exploration rates.

A schedule is read by compiled loops, so it is one of three forms and not any function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plaudit.mdp.compiled import inlined
from plaudit.records.errors import UserError

_CONSTANT, _VISITS, _LINEAR = 0, 1, 2


class Rate(NamedTuple):
    """A schedule as kernels read it: what it is, where it begins and ends, power or steps."""

    kind: int
    first: float
    last: float
    span: float


@dataclass(frozen=True)
class Schedule:
    """A step size or exploration rate over time; made by `constant`, `by_visits` and `linear`."""

    rate: Rate

    def __post_init__(self) -> None:
        _, first, last, span = self.rate
        for value in (first, last, span):
            if not np.isfinite(value):
                raise UserError(f"schedule: {value}; expected a finite number")


def constant(value: float) -> Schedule:
    """The same number throughout."""
    return Schedule(Rate(_CONSTANT, float(value), float(value), 1.0))


def by_visits(power: float = 1.0, first: float = 1.0) -> Schedule:
    """first / n^power at the n-th visit: of a state and action for alpha, of a state for epsilon.

    With a power above 0.5 and up to 1 the step sizes of each pair sum to infinity and their
    squares do not, which is what convergence with probability one asks for; with `power=1` and
    `first=1` the estimate is the plain average of its targets.
    Source: Robbins & Monro 1951; Sutton & Barto 2018, equation 2.7.
    """
    if not 0 < power <= 1:
        raise UserError(f"by_visits: power {power}; expected a number above 0, at most 1")
    return Schedule(Rate(_VISITS, float(first), float(first), float(power)))


def linear(first: float, last: float, num_steps: int) -> Schedule:
    """From `first` to `last` over the first `num_steps` steps, and `last` from there on."""
    if num_steps < 1:
        raise UserError(f"linear: num_steps {num_steps}; expected 1 or more")
    return Schedule(Rate(_LINEAR, float(first), float(last), float(num_steps)))


def step_size_of(given: float | Schedule, what: str = "alpha") -> Rate:
    """A step size as a `Rate` with values in (0, 1]; a UserError names the option otherwise."""
    rate, values = _read(given, what)
    for value in values:
        if not 0 < value <= 1:
            raise UserError(f"{what}: {value}; expected a number above 0, at most 1")
    return rate


def share_of(given: float | Schedule, what: str = "epsilon") -> Rate:
    """An exploration rate as a `Rate` with values in [0, 1]; a UserError names the option."""
    rate, values = _read(given, what)
    for value in values:
        if not 0 <= value <= 1:
            raise UserError(f"{what}: {value}; expected a number from 0 to 1")
    return rate


def _read(given: float | Schedule, what: str) -> tuple[Rate, tuple[float, ...]]:
    """The rate, and the values between which it stays."""
    if isinstance(given, Schedule):
        return given.rate, (given.rate.first, given.rate.last)
    if isinstance(given, bool) or not isinstance(given, int | float | np.floating | np.integer):
        raise UserError(f"{what}: {given!r}; expected a number or a Schedule")
    value = float(given)
    return Rate(_CONSTANT, value, value, 1.0), (value,)


@inlined
def rate_at(rate: Rate, num_visits: int, num_steps: int) -> float:
    """The schedule's value at a visit (from 1) and step (from 0)."""
    if rate.kind == _CONSTANT:
        return rate.first
    if rate.kind == _VISITS:
        if rate.span == 1.0:
            return rate.first / num_visits
        return float(rate.first / num_visits**rate.span)
    if num_steps >= rate.span:
        return rate.last
    return rate.first + (rate.last - rate.first) * (num_steps / rate.span)


@inlined
def by_visits_of_state(rate: Rate) -> bool:
    """Whether the schedule needs the visits of the state to be counted."""
    return rate.kind == _VISITS
