"""Small worlds written as rules: what can happen in a state under an action, put into a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy import sparse

from plaudit.mdp.layout import paid_rows
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError

H = TypeVar("H", bound=Hashable)

Outcomes = Iterable[tuple[float, H, float]]
"""(probability, next state, reward) of everything that can happen; nothing: no such action."""


def tabulated(
    states: Sequence[H],
    actions: Sequence[str],
    outcomes: Callable[[H, int], Outcomes[H]],
    gamma: float,
    *,
    start: Mapping[H, float],
    name: Callable[[H], str] = str,
    grid: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None = None,
    reward_std: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None,
) -> MDP:
    """A world from `outcomes(state, action)`; states and actions are numbered in the given order.

    `start` holds the probability of beginning in a state. Where two outcomes lead to one next state
    they become one transition with their mean reward.
    """
    number = {state: i for i, state in enumerate(states)}
    p: list[float] = []
    paid: list[float] = []
    column: list[int] = []
    indptr = [0]
    missing = np.zeros(len(states) * len(actions), np.bool_)
    for s, state in enumerate(states):
        for a in range(len(actions)):
            merged = _merged(outcomes(state, a), number)
            for next_state, (probability, total) in sorted(merged.items()):
                p.append(probability)
                paid.append(total / probability)
                column.append(next_state)
            missing[s * len(actions) + a] = not merged
            indptr.append(len(p))
    rows = sparse.csr_array((p, column, indptr), shape=(missing.size, len(states)))
    initial = np.zeros(len(states))
    for state, probability in start.items():
        initial[number[state]] = probability
    return MDP(
        rows,
        paid_rows(rows, paid, missing),
        gamma,
        initial=initial,
        reward_std=reward_std,
        states=[name(state) for state in states],
        actions=actions,
        grid=grid,
    )


def _merged(given: Outcomes[H], number: Mapping[H, int]) -> dict[int, tuple[float, float]]:
    merged: dict[int, tuple[float, float]] = {}
    for probability, next_state, reward in given:
        if probability > 0:
            before, total = merged.get(number[next_state], (0.0, 0.0))
            merged[number[next_state]] = (before + probability, total + probability * reward)
    return merged


def check_probability(option: str, given: float) -> None:
    """Raises UserError for an option of a world that is no probability."""
    if not 0 <= given <= 1:
        raise UserError(f"{option}: {given}; expected a probability from 0 to 1")


def check_least(option: str, given: int, least: int) -> None:
    """Raises UserError for an option of a world that is too small."""
    if given < least:
        raise UserError(f"{option}: {given}; expected {least} or more")
