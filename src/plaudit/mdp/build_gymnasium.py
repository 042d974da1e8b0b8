"""Worlds from Gymnasium environments that show their rules as a table `P`.

P[s][a] is a list of (probability, next state, reward, done).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.entries import Entries, check_sum, number_of, probability_of
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest

Ints: TypeAlias = NDArray[np.int64]
Steps: TypeAlias = list[tuple[float, int, float, bool]]

DIRECTIONS = ("UP", "DOWN", "LEFT", "RIGHT")

INSTALL = "install it with: pip install 'plaudit[gym]'"


def from_gymnasium(env: Any, gamma: float, **options: Any) -> MDP:
    """The world of a Gymnasium environment (or of its id, made with `options`) that has `P`.

    A state that is entered only by transitions that end the episode becomes terminal; where such
    a transition leads to a state that is also entered otherwise, it leads to an end of its own, one
    more state at the last place. `initial_state_distrib` says where episodes begin. States are
    numbered as there, drawn on its map or `shape` where that has a cell for each; actions are named
    where the environment's module numbers UP, DOWN, LEFT and RIGHT.
    Limits on the number of steps are the wrapper's, not the world's, and are left out.
    Raises UserError: no such id, no `P`, and every mistake in it with its state and action.
    """
    made = isinstance(env, str)
    maker = _make(env, options) if made else env
    try:
        world = getattr(maker, "unwrapped", maker)
        name = env if made else type(world).__name__
        table = getattr(world, "P", None)
        if table is None:
            raise UserError(
                f"{name} does not show its rules as a table P, as FrozenLake-v1 does; learn from it "
                "by steps instead"
            )
        return _world(table, gamma, world, f"{name}, P")
    finally:
        if made:
            maker.close()


def _make(name: str, options: Mapping[str, Any]) -> Any:
    try:
        import gymnasium
    except ImportError:
        raise UserError(f"{name} is a Gymnasium environment; {INSTALL}") from None
    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.Error as error:
        hint = nearest(name, gymnasium.registry)
        raise UserError(f"no environment {name!r}{hint}: {error}") from None


def _world(table: Any, gamma: float, env: Any, where: str) -> MDP:
    """The MDP of a checked table."""
    steps, num_actions = _read(table, where)
    num_states = len(steps)
    going = np.zeros(num_states, np.bool_)  # entered by a transition that goes on
    ended = np.zeros(num_states, np.bool_)
    for by_action in steps:
        for outcomes in by_action.values():
            for p, to, _, done in outcomes:
                if p > 0:
                    (ended if done else going)[to] = True
    initial = _initial(env, num_states, where)
    terminal = ended & ~going
    if initial is not None:
        terminal &= initial == 0
    extra = bool((ended & ~terminal).any())
    entries = Entries()
    for s, by_action in enumerate(steps):
        for a, outcomes in by_action.items():
            for p, to, reward, done in outcomes:
                if not terminal[s]:
                    own_end = done and not terminal[to]
                    entries.add(s, a, num_states if own_end else to, p, reward)
    if initial is not None and extra:
        initial = np.append(initial, 0.0)
    count = num_states + extra
    names = _directions(env, num_actions)
    grid = _grid(env, num_states)
    return entries.world(count, num_actions, gamma, initial=initial, actions=names, grid=grid)


def _read(table: Any, where: str) -> tuple[list[dict[int, Steps]], int]:
    """([S] of action → outcomes, A), every entry checked."""
    by_state = _numbered(table, f"{where}: states")
    steps: list[dict[int, Steps]] = []
    num_actions = 0
    for s, by_action in by_state:
        found: dict[int, Steps] = {}
        for a, outcomes in _keys(by_action, f"{where}[{s}]: actions"):
            found[a] = _outcomes(outcomes, len(by_state), f"{where}[{s}][{a}]")
            num_actions = max(num_actions, a + 1)
        steps.append(found)
    if not num_actions:
        raise UserError(f"{where}: there are no actions")
    return steps, num_actions


def _numbered(given: Any, where: str) -> list[tuple[int, Any]]:
    pairs = _keys(given, where)
    if [i for i, _ in pairs] != list(range(len(pairs))) or not pairs:
        raise UserError(f"{where} are not numbered 0, 1, 2, ...")
    return pairs


def _keys(given: Any, where: str) -> list[tuple[int, Any]]:
    """(number, value) pairs of a mapping or a list, in order."""
    if isinstance(given, list | tuple):
        return list(enumerate(given))
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {type(given).__name__}; expected a mapping or a list")
    for key in given:
        if not isinstance(key, int | np.integer) or key < 0:
            raise UserError(f"{where}: {key!r}; expected numbers 0, 1, 2, ...")
    return sorted((int(key), value) for key, value in given.items())


def _outcomes(given: Any, num_states: int, where: str) -> Steps:
    found: Steps = []
    for outcome in given:
        if not isinstance(outcome, list | tuple) or len(outcome) != 4:
            raise UserError(
                f"{where}: {outcome!r}; expected (probability, next state, reward, done)"
            )
        p, to, reward, done = outcome
        if not isinstance(to, int | np.integer) or not 0 <= to < num_states:
            raise UserError(f"{where}: next state {to!r}; expected 0 to {num_states - 1}")
        paid = number_of(reward, f"{where}: reward")
        found.append((probability_of(p, where), int(to), paid, bool(done)))
    check_sum([(p, to) for p, to, _, _ in found], where)
    return found


def _initial(env: Any, num_states: int, where: str) -> NDArray[np.float64] | None:
    given = getattr(env, "initial_state_distrib", None)
    if given is None:
        return None
    initial = np.asarray(given, dtype=np.float64)
    if initial.shape != (num_states,):
        raise UserError(
            f"{where}: {num_states} states, but initial_state_distrib has shape {initial.shape}"
        )
    return initial


def _directions(env: Any, num_actions: int) -> list[str] | None:
    """Names of the actions, where the constants of the environment's module are exactly these."""
    module = sys.modules.get(type(env).__module__)
    number = {getattr(module, name, None): name.lower() for name in DIRECTIONS}
    if num_actions != len(DIRECTIONS) or set(number) != set(range(num_actions)):
        return None
    return [number[a] for a in range(num_actions)]


def _grid(env: Any, num_states: int) -> Ints | None:
    """States as cells, where the environment's map or shape has one for each."""
    shape = getattr(env, "shape", None)
    if shape is None:
        shape = np.asarray(getattr(env, "desc", None)).shape
    if len(shape) != 2 or shape[0] * shape[1] != num_states:
        return None
    return np.arange(num_states).reshape(shape)
