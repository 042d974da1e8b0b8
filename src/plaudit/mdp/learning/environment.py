"""The learners of control in a Gymnasium environment with discrete observations and actions.

The environment is stepped from Python, and every transition goes to the same compiled update that
worlds with a table use. `terminated` ends the future; `truncated` only the episode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from plaudit.mdp.checks import check_gamma
from plaudit.mdp.learning.acting import GOES_ON, TERMINATED, TRUNCATED, Task, act, count_step
from plaudit.mdp.learning.algorithms import ALGORITHMS
from plaudit.mdp.learning.control import Algorithm, Memory, Own
from plaudit.mdp.learning.result import ACTION, EPISODE_STEP, STATE, Floats, Ints, Learned, Walk
from plaudit.mdp.learning.sampling import Table
from plaudit.records.errors import UserError, nearest

if TYPE_CHECKING:
    import gymnasium

INSTALL = 'pip install "gymnasium>=1.0,<2"'


def learn_in(
    method: str,
    env: str | gymnasium.Env[Any, Any],
    *,
    num_steps: int,
    gamma: float = 0.99,
    **options: Any,
) -> Learned:
    """Runs a learner of `ALGORITHMS` in a Gymnasium environment.

    env: an id such as "FrozenLake-v1", or an environment, whose own limit of steps is kept; gamma:
    the discount; options: those of the learner. The seed also seeds the environment. The last of
    the `num_steps` cuts its episode, which is not counted among the finished ones; with `start`
    the run goes on in a new episode. Where an environment ends on entering a state, that state's
    own q is never learned and stays at q_start.

    Raises UserError for an unknown method, option or id, and for spaces that are not Discrete.
    Check: on an environment's own table `mdp`, values agree with those learned from the table.
    """
    learner = _learner(method, options)
    made = _made(env)
    try:
        world = Environment(made, gamma)
        return learner(world, num_steps=num_steps, **options)
    finally:
        if isinstance(env, str):
            made.close()


class Environment:
    """A Gymnasium environment as learners act in it: states and actions counted from 0."""

    def __init__(self, env: gymnasium.Env[Any, Any], gamma: float) -> None:
        num_states, self._first_state = _discrete(env.observation_space, "observation", env)
        num_actions, self._first_action = _discrete(env.action_space, "action", env)
        self.env = env
        self.gamma = check_gamma(gamma)
        self.table = _table_without_rules(num_states, num_actions)

    def first(self, walk: Walk, seed: int | None) -> None:
        """A new episode. A run that stopped inside an episode of a table cannot go on here."""
        if seed is None and walk.at[EPISODE_STEP] > 0:
            raise UserError("start: it stands inside an episode elsewhere; give its q as q_start")
        self._reset(walk, seed)

    def run(
        self,
        algorithm: Algorithm,
        task: Task,
        own: Own,
        walk: Walk,
        memory: Memory,
        num_steps: int,
    ) -> tuple[Floats, Ints]:
        """Acts, steps and learns; the returns and lengths of the finished episodes."""
        totals: list[float] = []
        lengths: list[int] = []
        for remaining in range(num_steps - 1, -1, -1):
            state = int(walk.at[STATE])
            action = act(self.table, task, walk)
            seen, paid, terminated, truncated, _ = self.env.step(action + self._first_action)
            next_state, reward = int(seen) - self._first_state, float(paid)
            at_limit = count_step(task, walk, state, action, reward)
            over = terminated or truncated or at_limit
            end = TERMINATED if terminated else TRUNCATED if over or not remaining else GOES_ON
            algorithm.observe(
                self.table, task, own, walk, memory, state, action, reward, next_state, end
            )
            walk.at[STATE] = next_state
            if over:
                totals.append(float(walk.so_far[0]))
                lengths.append(int(walk.at[EPISODE_STEP]))
                if remaining:
                    self._reset(walk, None)
        _stand_nowhere(walk)
        return np.array(totals), np.array(lengths, dtype=np.int64)

    def _reset(self, walk: Walk, seed: int | None) -> None:
        seen, _ = self.env.reset(seed=None if seed is None else int(seed))
        _stand_nowhere(walk)
        walk.at[STATE] = int(seen) - self._first_state


def _stand_nowhere(walk: Walk) -> None:
    """Between two episodes: the next one is yet to begin."""
    walk.at[STATE] = walk.at[ACTION] = -1
    walk.at[EPISODE_STEP] = 0
    walk.so_far[0] = 0.0


def _learner(method: str, options: dict[str, Any]) -> Callable[..., Learned]:
    if method not in ALGORITHMS:
        raise UserError(
            f"no learner {method!r}{nearest(method, ALGORITHMS)}; one of {', '.join(ALGORITHMS)}"
        )
    known = [name for name in inspect.signature(ALGORITHMS[method]).parameters if name != "mdp"]
    for name in options:
        if name not in known:
            raise UserError(f"{method} has no option {name!r}{nearest(name, known)}")
    return ALGORITHMS[method]


def _made(env: str | gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    try:
        import gymnasium
    except ImportError:
        raise UserError(f"learn_in needs Gymnasium: {INSTALL}") from None
    if isinstance(env, gymnasium.Env):
        return env
    if not isinstance(env, str):
        raise UserError(f"env: a {type(env).__name__}; expected a Gymnasium environment or its id")
    try:
        return cast("gymnasium.Env[Any, Any]", gymnasium.make(env))
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        hint = nearest(env, gymnasium.registry)
        raise UserError(f"env: {env!r} cannot be made{hint}: {error}") from None


def _discrete(space: Any, what: str, env: Any) -> tuple[int, int]:
    """How many values a Discrete space has, and the first of them."""
    from gymnasium.spaces import Discrete

    if not isinstance(space, Discrete):
        raise UserError(
            f"{env}: its {what} space is {space}; expected Discrete, as a table has a row for each "
            "value"
        )
    return int(space.n), int(space.start)


def _table_without_rules(num_states: int, num_actions: int) -> Table:
    """A table that says only what exists: every action, everywhere."""
    nothing, none = np.empty(0), np.empty(0, np.int64)
    exists = np.ones((num_states, num_actions), np.bool_)
    terminal = np.zeros(num_states, np.bool_)
    return Table(none, none, nothing, nothing, nothing, exists, terminal, none, nothing)
