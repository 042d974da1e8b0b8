"""Judging a policy by whole episodes on worlds of their own, with an interval.

Each of the worlds plays as many episodes as the others, the first ones it ends: counting whatever
ends first would favour short episodes. The episodes begin alike at every evaluation, so that two
policies are compared on the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.make import make_worlds
from plaudit.envs.settings import WorldSettings
from plaudit.envs.worlds import Episode, Worlds
from plaudit.records.intervals import bootstrap_interval
from plaudit.records.state import Saved

Act: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations [B, ...] in, actions out."""


@runtime_checkable
class Stateful(Protocol):
    """An `Act` or a policy that must be told where episodes begin."""

    def begin(self) -> None:
        """All that was seen is forgotten."""
        ...

    def note(self, starts: NDArray[np.bool_]) -> None:
        """Rows [B] whose next observation is the first of an episode."""
        ...


EVALUATION_SEED = 1_000_003
"""Added to a run's seed for the worlds that it is judged on, which training never begins."""

MOST_WORLDS = 32
"""Episodes that are played side by side."""


class Evaluator:
    """Plays the same `num_episodes` episodes whenever it is called."""

    def __init__(self, settings: WorldSettings, num_episodes: int) -> None:
        self._settings, self._num_episodes = settings, num_episodes
        self._worlds: Worlds | None = None
        self._begin: Saved | None = None

    def __call__(
        self, act: Act, copy_statistics: Callable[[Worlds], None] = lambda worlds: None
    ) -> dict[str, float]:
        """The metrics of `summary`, of the policy `act`."""
        return summary(self.episodes(act, copy_statistics))

    def episodes(
        self, act: Act, copy_statistics: Callable[[Worlds], None] = lambda worlds: None
    ) -> list[Episode]:
        """The episodes themselves, those of each copy in their order."""
        num_worlds = min(self._num_episodes, MOST_WORLDS)
        if self._worlds is None:
            seed = self._settings.seed + EVALUATION_SEED
            self._worlds = make_worlds(
                self._settings, seed=seed, num_envs=num_worlds, training=False
            )
        copy_statistics(self._worlds)
        return play(self._worlds, act, self._first_obs(), self._num_episodes)

    def _first_obs(self) -> NDArray[Any]:
        """The first observations, those of the first evaluation again where that can be."""
        assert self._worlds is not None
        if self._begin is None:
            obs = self._worlds.reset()
            self._begin = self._worlds.state() if self._worlds.gives_state else None
            return obs
        return self._worlds.restore(self._begin)

    def close(self) -> None:
        """Ends the worlds."""
        if self._worlds is not None:
            self._worlds.close()
            self._worlds = None
            self._begin = None


def play(worlds: Worlds, act: Act, obs: NDArray[Any], num_episodes: int) -> list[Episode]:
    """The first episodes of each copy, `num_episodes` in all, shared among the copies evenly."""
    share, more = divmod(num_episodes, worlds.num_envs)
    wanted = [share + (copy < more) for copy in range(worlds.num_envs)]
    ended: list[list[Episode]] = [[] for _ in wanted]
    left = num_episodes
    player: object = act  # a function, or more than that
    if isinstance(player, Stateful):
        player.begin()
    while left:
        moved = worlds.step(act(obs))
        obs = moved.obs
        if isinstance(player, Stateful):
            player.note(moved.boundary | ~moved.mask)
        for episode in moved.episodes:
            if len(ended[episode.env]) < wanted[episode.env]:
                ended[episode.env].append(episode)
                left -= 1
    return [episode for episodes in ended for episode in episodes]


def summary(episodes: list[Episode]) -> dict[str, float]:
    """Mean return with a 95 % bootstrap percentile interval, and mean length."""
    returns = np.array([episode.ret for episode in episodes])
    low, high = bootstrap_interval(returns)
    return {
        "eval/return": float(returns.mean()),
        "eval/return_low": low,
        "eval/return_high": high,
        "eval/length": float(np.mean([episode.length for episode in episodes])),
    }
