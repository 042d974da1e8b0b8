"""How good an agent is: whole episodes on fresh copies of its world, told with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.agents.agent import Agent
from plaudit.agents.evaluation import EVALUATION_SEED, MOST_WORLDS, Stateful, play, summary
from plaudit.envs.make import make_worlds
from plaudit.envs.video import record_episode
from plaudit.envs.worlds import Array, Episode, Transition, Worlds
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved


@dataclass(frozen=True)
class Judgement:
    """Episodes that an agent played, and which of them were cut off before their end."""

    env: str
    episodes: list[Episode]
    truncated: list[bool]
    seed: int
    deterministic: bool

    def facts(self) -> dict[str, Any]:
        """Figures by name: JSON, and the rows of a table."""
        returns = np.array([episode.ret for episode in self.episodes])
        figures = summary(self.episodes)
        lengths = [episode.length for episode in self.episodes]
        return {
            "env": self.env,
            "episodes": len(self.episodes),
            **figures,
            "eval/return_median": float(np.median(returns)),
            "eval/return_min": float(returns.min()),
            "eval/return_max": float(returns.max()),
            "eval/length_min": min(lengths),
            "eval/length_max": max(lengths),
            "eval/truncated": float(np.mean(self.truncated)),
            "policy": "deterministic" if self.deterministic else "stochastic",
            "seed": self.seed,
        }


class _Noting:
    """Worlds as they are; notes of every episode that ends whether it was cut off."""

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        self.num_envs, self.gives_state = worlds.num_envs, worlds.gives_state
        self.statistics = worlds.statistics
        self.obs_spec: ObsSpec = worlds.obs_spec
        self.action_spec: ActionSpec = worlds.action_spec
        self.cut: list[tuple[Episode, bool]] = []

    def reset(self) -> Array:
        return self._worlds.reset()

    def step(self, actions: Array) -> Transition:
        moved = self._worlds.step(actions)
        for episode in moved.episodes:
            self.cut.append((episode, not moved.terminated[episode.env]))
        return moved

    def state(self) -> Saved:
        return self._worlds.state()

    def restore(self, saved: Saved) -> Array:
        return self._worlds.restore(saved)

    def close(self) -> None:
        self._worlds.close()


def judge(
    agent: Agent, num_episodes: int = 100, *, seed: int | None = None, deterministic: bool = True
) -> Judgement:
    """Plays `num_episodes` episodes with the agent's world as it was when it learned.

    Without `seed` they are the episodes that the end of its training was judged by. An episode that
    ends and is cut off in the same step counts as ended.
    """
    settings, own = agent.settings, agent.settings.seed if seed is None else seed
    rng = None if deterministic else np.random.default_rng(own)
    worlds = _Noting(
        make_worlds(
            settings,
            seed=own + EVALUATION_SEED,
            num_envs=min(num_episodes, MOST_WORLDS),
            training=False,
        )
    )
    try:
        agent.copy_statistics(worlds)
        episodes = play(worlds, agent.batch(rng), worlds.reset(), num_episodes)
    finally:
        worlds.close()
    cut = {id(episode): was_cut for episode, was_cut in worlds.cut}
    truncated = [cut[id(episode)] for episode in episodes]
    return Judgement(settings.env, episodes, truncated, own, deterministic)


def film(agent: Agent, file: Path, *, seed: int, deterministic: bool = True) -> Episode:
    """Writes what the first episode of `judge` with this seed looks like; returns the episode.

    Raises UserError where the environment draws nothing, or where a library is missing.
    """
    statistics = agent.statistics
    act = agent.batch(None if deterministic else np.random.default_rng(seed))
    told: object = act
    if isinstance(told, Stateful):
        told.begin()

    def seen(obs: Array) -> Array:
        return act(obs if statistics is None else statistics.apply(obs))

    return record_episode(agent.settings, seen, file, seed + EVALUATION_SEED)
