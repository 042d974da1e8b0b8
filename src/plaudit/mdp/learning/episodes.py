"""Episodes of a policy in a finite world, and the checks that all who learn from them share."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.learned import Predicted
from plaudit.mdp.learning.sampling import (
    Floats,
    Ints,
    Table,
    Words,
    drawn_action,
    first_state,
    seeded,
    step,
    table_of,
)
from plaudit.mdp.model import MDP, MRP, policy_rows
from plaudit.records.errors import UserError

Flags: TypeAlias = NDArray[np.bool_]

NO_LIMIT = 1 << 60
"""max_steps of an episode that ends only in a terminal state."""


PLANNED_ZERO = 1e-9
"""A planner's value of a terminal state is 0 up to its rounding; a learner's is 0 exactly."""


class Episode(NamedTuple):
    """One episode: states [T + 1], actions and rewards [T] in buffers that may be longer.

    `ended` is false if it was cut after `max_steps` steps, in a state that is not terminal.
    """

    states: Ints
    actions: Ints
    rewards: Floats
    length: int
    ended: bool


class Acting(NamedTuple):
    """A policy at work: the world's table, the probabilities [S, A], and the longest episode."""

    table: Table
    policy: Floats
    gamma: float
    max_steps: int


class Run(NamedTuple):
    """How far a prediction is; kernels write into its arrays.

    `trace` [K, S] gets the value after episodes every, 2·every, ...; `done` episodes came before.
    """

    value: Floats
    counts: Ints
    rng: Words
    trace: Floats
    every: int
    done: int
    num_episodes: int


@compiled
def next_episode(acting: Acting, rng: Words, buffer: Episode) -> Episode:
    """One episode, written over `buffer` (a longer one is returned where it does not fit)."""
    state, t = first_state(acting.table, rng), 0
    buffer.states[0] = state
    while goes_on(acting, state, t):
        buffer = longer(buffer, t)
        state, t = _walk_on(acting, rng, buffer, state, t)
    return Episode(buffer.states, buffer.actions, buffer.rewards, t, acting.table.terminal[state])


@inlined
def _walk_on(acting: Acting, rng: Words, buffer: Episode, state: int, t: int) -> tuple[int, int]:
    """To the end of the episode or of the buffer: (state, steps) there."""
    while goes_on(acting, state, t) and t < buffer.rewards.size:
        action = drawn_action(acting.policy, rng, state)
        state, reward = step(acting.table, rng, state, action)
        buffer.actions[t], buffer.rewards[t] = action, reward
        t += 1
        buffer.states[t] = state
    return state, t


@inlined
def goes_on(acting: Acting, state: int, t: int) -> bool:
    """Whether an episode that is in `state` after t steps has another step."""
    return not acting.table.terminal[state] and t < acting.max_steps


@inlined
def acted(acting: Acting, rng: Words, state: int) -> tuple[int, float]:
    """(next state, reward) of one step of the policy."""
    return step(acting.table, rng, state, drawn_action(acting.policy, rng, state))


@compiled
def empty_episode() -> Episode:
    """A buffer for `next_episode`."""
    return Episode(np.zeros(65, np.int64), np.zeros(64, np.int64), np.zeros(64), 0, True)


@compiled
def longer(buffer: Episode, t: int) -> Episode:
    """The buffer with room for step t."""
    if t < buffer.rewards.size:
        return buffer
    more = np.zeros(buffer.rewards.size, np.int64)
    states, actions = np.append(buffer.states, more), np.append(buffer.actions, more)
    return Episode(states, actions, np.append(buffer.rewards, 0.0 * more), buffer.length, True)


@inlined
def record(run: Run, episode: int) -> None:
    """Keep the value after this episode of the run (counted from 0), if its turn has come."""
    number = run.done + episode + 1
    if run.every > 0 and number % run.every == 0:
        row = number // run.every - run.done // run.every - 1
        for s in range(run.value.size):
            run.trace[row, s] = run.value[s]


@compiled
def endless_state(table: Table, policy: Floats) -> int:
    """A state that episodes can reach and from which they never end, or -1 if there is none."""
    indptr, next_state, upto = table.indptr, table.next_state, table.upto
    num_states, num_actions = table.exists.shape
    seen = np.zeros(num_states, np.bool_)
    stack = np.empty(num_states, np.int64)
    moves = np.zeros(num_states + 1, np.int64)
    seen[table.start] = True
    top = table.start.size
    stack[:top] = table.start
    while top > 0:
        top -= 1
        s = stack[top]
        for a in range(num_actions):
            if table.terminal[s] or policy[s, a] <= 0.0:
                continue
            before = 0.0
            for k in range(indptr[s * num_actions + a], indptr[s * num_actions + a + 1]):
                if upto[k] == before:  # a transition stored with probability 0
                    continue
                before = upto[k]
                moves[next_state[k] + 1] += 1
                if not seen[next_state[k]]:
                    seen[next_state[k]] = True
                    stack[top] = next_state[k]
                    top += 1
    return _without_end(table, policy, seen, np.cumsum(moves), stack)


@compiled
def _without_end(table: Table, policy: Floats, seen: Flags, begin: Ints, stack: Ints) -> int:
    """A state of `seen` with no way to a terminal one: the moves are followed backwards."""
    indptr, next_state, upto = table.indptr, table.next_state, table.upto
    num_states, num_actions = table.exists.shape
    source = np.empty(begin[-1], np.int64)
    place = begin[:-1].copy()
    for s in range(num_states):
        for a in range(num_actions):
            if not seen[s] or table.terminal[s] or policy[s, a] <= 0.0:
                continue
            before = 0.0
            for k in range(indptr[s * num_actions + a], indptr[s * num_actions + a + 1]):
                if upto[k] > before:
                    before = upto[k]
                    source[place[next_state[k]]] = s
                    place[next_state[k]] += 1
    ends = table.terminal.copy()
    first = np.flatnonzero(seen & ends)
    top = first.size
    stack[:top] = first
    while top > 0:
        top -= 1
        s = stack[top]
        for k in range(begin[s], place[s]):
            if not ends[source[k]]:
                ends[source[k]] = True
                stack[top] = source[k]
                top += 1
    for s in range(num_states):
        if seen[s] and not ends[s]:
            return s
    return -1


def acting_in(
    world: MDP | MRP, policy: ArrayLike | None, *, max_steps: int | None = None
) -> Acting:
    """A policy ready to act; a chain takes none. Episodes must end, or be cut by `max_steps`."""
    mdp = with_actions(world, policy)
    rows = np.ones((mdp.num_states, 1)) if policy is None else policy_rows(mdp, policy)
    table, rows = table_of(mdp), np.array(rows, dtype=np.float64, order="C")
    check_ends(table, rows, max_steps)
    return Acting(table, rows, mdp.gamma, NO_LIMIT if max_steps is None else int(max_steps))


def with_actions(world: MDP | MRP, policy: ArrayLike | None) -> MDP:
    """The world as an MDP: a chain has one action, which pays R(s), its mean, each time."""
    if isinstance(world, MRP):
        if policy is not None:
            raise UserError("policy: a Markov reward process takes no policy; leave it out")
        return MDP(world.transition, world.reward[:, None], world.gamma, states=world.states)
    if policy is None:
        raise UserError("policy: missing; an MDP has a value only under a policy")
    return world


def check_ends(table: Table, rows: Floats, max_steps: int | None) -> None:
    """Every episode ends in a terminal state, or there is a limit to its steps."""
    if max_steps is not None:
        check_count(max_steps, "max_steps")
        return
    state = endless_state(table, rows)
    if state >= 0:
        raise UserError(
            f"policy: an episode that comes to state {state} never ends; give max_steps to methods "
            "that have it, or use a world and policy that reach a terminal state"
        )


def run_of(
    acting: Acting,
    num_episodes: int,
    seed: int,
    start_value: ArrayLike | None,
    start: Predicted | None,
    trace_every: int | None,
) -> Run:
    """The arrays of a new run, or those of `start`, copied."""
    check_count(num_episodes, "num_episodes")
    if trace_every is not None:
        check_count(trace_every, "trace_every")
    every, size = trace_every or 0, acting.table.terminal.size
    done = 0 if start is None else start.num_episodes
    rows = (done + num_episodes) // every - done // every if every else 0
    trace = np.empty((rows, size))
    if start is None:
        value = _start_value(start_value, acting.table.terminal)
        counts = np.zeros(size, np.int64)
        return Run(value, counts, seeded(seed), trace, every, 0, int(num_episodes))
    if start_value is not None:
        raise UserError("start_value: `start` already holds a value; give one of the two")
    if start.value.size != size:
        raise UserError(f"start: learned in {start.value.size} states; expected {size}")
    kept = start.value.copy(), start.counts.copy(), start.rng.copy()
    return Run(*kept, trace, every, done, int(num_episodes))


def predicted(run: Run, num_steps: int, start: Predicted | None) -> Predicted:
    """The result of a run."""
    steps, trace = totals(run, num_steps, start)
    done = run.done + run.num_episodes
    return Predicted(run.value, run.counts, done, steps, run.rng, trace)


def totals(run: Run, num_steps: int, start: Predicted | None) -> tuple[int, Floats]:
    """Steps and trace with those of the earlier part."""
    if start is None:
        return num_steps, run.trace
    earlier = start.trace if run.every and len(start.trace) else run.trace[:0]
    return start.num_steps + num_steps, np.concatenate([earlier, run.trace])


def _start_value(given: ArrayLike | None, terminal: Flags) -> Floats:
    value = np.asarray(0.0 if given is None else given, dtype=np.float64)
    if value.ndim == 0:
        value = np.where(terminal, 0.0, value)
    if value.shape != terminal.shape:
        raise UserError(f"start_value: shape {value.shape}; expected a number or [{terminal.size}]")
    if not np.isfinite(value).all():
        raise UserError(
            f"start_value: state {np.flatnonzero(~np.isfinite(value))[0]} is not finite"
        )
    wrong = np.flatnonzero(terminal & (np.abs(value) > PLANNED_ZERO))
    if wrong.size:
        raise UserError(f"start_value: terminal state {wrong[0]} has {value[wrong[0]]}; expected 0")
    return np.where(terminal, 0.0, value)


def check_count(count: object, name: str) -> int:
    """A whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise UserError(f"{name}: {count!r}; expected a whole number of 1 or more")
    return int(count)


def check_step_size(alpha: float, name: str = "alpha") -> float:
    """A constant step size in (0, 1]."""
    if not _is_number(alpha) or not 0 < alpha <= 1:
        raise UserError(f"{name}: {alpha!r}; expected a number above 0 and at most 1")
    return float(alpha)


def check_step_size_or_average(alpha: float | None) -> float:
    """A step size for kernels: 0 stands for None, one over the number of updates."""
    return 0.0 if alpha is None else check_step_size(alpha)


def check_positive(number: float, name: str) -> float:
    """A finite number above 0 (step sizes over features, which have any scale)."""
    if not _is_number(number) or not 0 < number < np.inf:
        raise UserError(f"{name}: {number!r}; expected a number above 0")
    return float(number)


def check_fraction(number: float, name: str) -> float:
    """A number from 0 to 1."""
    if not _is_number(number) or not 0 <= number <= 1:
        raise UserError(f"{name}: {number!r}; expected a number from 0 to 1")
    return float(number)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool)


@inlined
def rate(alpha: float, count: int) -> float:
    """The step size of the count-th update: alpha, or one over the count where alpha is 0."""
    return alpha if alpha > 0.0 else 1.0 / count
