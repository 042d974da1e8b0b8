"""What all learners of control share: options, beginning, running over a table, and going on.

A learner is one compiled function `observe`, which takes a transition and changes q, and a loop of
three calls around it (`moved`, `observe`, `closed`). The same `observe` serves worlds with a table,
where the whole loop is compiled, and environments that are stepped from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.learning.acting import Ended, Task
from plaudit.mdp.learning.result import ACTION, STATE, Floats, Ints, Learned, Walk, learned, thawed
from plaudit.mdp.learning.sampling import Table, first_state, seeded, table_of
from plaudit.mdp.learning.schedules import Schedule, share_of, step_size_of
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError

NO_LIMIT = 1 << 62
"""More steps than any episode takes."""

CHUNK = 1 << 16
"""Steps between two returns to Python: room for finished episodes, and for an interruption."""

Memory: TypeAlias = tuple[Any, ...]
"""Arrays that a learner carries beyond `Walk`: traces, a window, a model; a NamedTuple or ()."""

Own: TypeAlias = tuple[Any, ...]
"""Numbers of a learner beyond `Task`: a NamedTuple or ()."""


@dataclass(frozen=True)
class Algorithm:
    """A learner: its loop over a table, its update, and the memory it starts with.

    steps(table, task, own, walk, memory, ended, num_steps) -> episodes finished;
    observe(table, task, own, walk, memory, state, action, reward, next_state, end);
    memory(q, own) -> arrays.
    """

    name: str
    steps: Callable[..., int]
    observe: Callable[..., None]
    memory: Callable[[Floats, Own], Memory] = lambda q, own: ()


class Stepped(Protocol):
    """A world that can be acted in and has no table; see `plaudit.mdp.learning.environment`."""

    @property
    def table(self) -> Table:
        """Only `exists`, `terminal` [S] and shapes are read."""
        ...

    @property
    def gamma(self) -> float: ...

    def first(self, walk: Walk, seed: int | None) -> None:
        """Puts a walk in the first state of an episode; `seed` only for a new run."""
        ...

    def run(
        self,
        algorithm: Algorithm,
        task: Task,
        own: Own,
        walk: Walk,
        memory: Memory,
        num_steps: int,
    ) -> tuple[Floats, Ints]:
        """Steps and learns; the returns and lengths of the episodes that ended."""
        ...


class TableWorld:
    """An MDP as a learner acts in it: the whole loop is compiled."""

    def __init__(self, mdp: MDP) -> None:
        self.table = _begun_alive(table_of(mdp))
        self.gamma = mdp.gamma

    def first(self, walk: Walk, seed: int | None) -> None:
        """Draws a first state; a run that goes on inside an episode stands where it stood."""
        if seed is not None or walk.at[STATE] < 0:
            walk.at[STATE] = first_state(self.table, walk.rng)
        elif self.table.terminal[walk.at[STATE]]:
            raise UserError(f"start: it stands in state {walk.at[STATE]}, which is terminal here")

    def run(
        self,
        algorithm: Algorithm,
        task: Task,
        own: Own,
        walk: Walk,
        memory: Memory,
        num_steps: int,
    ) -> tuple[Floats, Ints]:
        """Runs the algorithm's loop, chunk after chunk."""
        room = Ended(np.empty(min(CHUNK, num_steps)), np.empty(min(CHUNK, num_steps), np.int64))
        totals, lengths = [], []
        for done in range(0, num_steps, CHUNK):
            count = min(CHUNK, num_steps - done)
            finished = algorithm.steps(self.table, task, own, walk, memory, room, count)
            totals.append(room.total[:finished].copy())
            lengths.append(room.length[:finished].copy())
        return np.concatenate(totals), np.concatenate(lengths)


@dataclass(frozen=True)
class Options:
    """What the caller of any learner said, as said."""

    num_steps: int
    alpha: float | Schedule
    epsilon: float | Schedule
    seed: int
    q_start: ArrayLike
    max_episode_steps: int | None
    start: Learned | None


def learn(algorithm: Algorithm, world: MDP | Stepped, options: Options, own: Own = ()) -> Learned:
    """Runs a learner for `num_steps` from a seed, or on from where `start` stands."""
    acted: Stepped = _acted(world)
    num_steps = whole(options.num_steps, "num_steps")
    task = _task(acted, options)
    start = options.start
    if not isinstance(start, Learned | None):
        raise UserError(f"start: a {type(start).__name__}; expected what a learner returned")
    if start is None:
        walk = _new_walk(acted.table, options)
        memory = algorithm.memory(walk.q, own)
        acted.first(walk, options.seed)
        totals, lengths = np.empty(0), np.empty(0, np.int64)
    else:
        walk, memory = _continued(algorithm, acted.table, start, own)
        acted.first(walk, None)
        totals, lengths = start.episode_return, start.episode_length
    more, longer = acted.run(algorithm, task, own, walk, memory, num_steps)
    return learned(
        algorithm.name,
        walk,
        memory,
        np.concatenate([totals, more]),
        np.concatenate([lengths, longer]),
    )


def whole(number: float, what: str, least: int = 1) -> int:
    """A whole number of at least `least`, or a UserError naming the option."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise UserError(f"{what}: {number!r}; expected a whole number of {least} or more")
    return int(number)


def number_in(number: float, what: str, least: float, most: float) -> float:
    """A number within [least, most], or a UserError naming the option."""
    if isinstance(number, bool) or not isinstance(number, int | float | np.floating | np.integer):
        raise UserError(f"{what}: {number!r} is not a number")
    if not least <= number <= most or not np.isfinite(number):
        bounds = f"{least:g} to {most:g}" if np.isfinite(most) else f"{least:g} or more"
        raise UserError(f"{what}: {number}; expected a number of {bounds}")
    return float(number)


def _acted(world: MDP | Stepped) -> Stepped:
    if isinstance(world, MDP):
        return TableWorld(world)
    if hasattr(world, "table") and hasattr(world, "run"):
        return world
    raise UserError(
        f"a {type(world).__name__} is not an MDP; learn in a Gymnasium environment with learn_in"
    )


def _task(acted: Stepped, options: Options) -> Task:
    limit = options.max_episode_steps
    return Task(
        float(acted.gamma),
        step_size_of(options.alpha),
        share_of(options.epsilon),
        NO_LIMIT if limit is None else whole(limit, "max_episode_steps"),
    )


def _new_walk(table: Table, options: Options) -> Walk:
    q = _first_q(table, options.q_start)
    at = np.zeros(4, np.int64)
    at[ACTION] = -1
    return Walk(q, np.zeros(q.shape, np.int64), seeded(options.seed), at, np.zeros(1))


def _first_q(table: Table, q_start: ArrayLike) -> Floats:
    shape = table.exists.shape
    try:
        given = np.asarray(q_start, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("q_start: not a number or an array of numbers") from None
    if given.shape not in ((), shape):
        raise UserError(f"q_start: shape {given.shape}; expected one number or shape {shape}")
    q = np.full(shape, given) if given.shape == () else given.copy()
    wrong = np.argwhere(table.exists & ~np.isfinite(q))
    if wrong.size:
        s, a = wrong[0]
        raise UserError(f"q_start: state {s}, action {a} has {q[s, a]}; expected a finite number")
    q[table.terminal] = 0.0
    q[~table.exists] = -np.inf
    return q


def _continued(algorithm: Algorithm, table: Table, start: Learned, own: Own) -> tuple[Walk, Memory]:
    if start.method != algorithm.name:
        raise UserError(
            f"start: it was learned by {start.method}, not {algorithm.name}; give its q as q_start"
        )
    if start.q.shape != table.exists.shape:
        raise UserError(f"start: q has shape {start.q.shape}; expected {table.exists.shape}")
    other = np.argwhere(np.isneginf(start.q) == table.exists)
    if other.size:
        s, a = other[0]
        raise UserError(f"start: state {s}, action {a} exists in only one of the two worlds")
    fresh = algorithm.memory(start.q, own)
    if [part.shape for part in fresh] != [part.shape for part in start.memory]:
        raise UserError(f"start: {algorithm.name} ran with other options, such as n; give the same")
    return Walk(*thawed(start.walk)), thawed(start.memory)


def _begun_alive(table: Table) -> Table:
    """A table whose episodes begin only where there is a step to take.

    An episode that would begin in a terminal state has no steps: it teaches nothing.
    """
    alive = ~table.terminal[table.start]
    if not alive.any():
        raise UserError("initial: every episode would begin in a terminal state")
    share = np.diff(table.start_upto, prepend=0.0)[alive]
    upto = np.cumsum(share) / share.sum()
    upto[-1] = 1.0
    return table._replace(start=table.start[alive], start_upto=upto)
