"""A learner of `plaudit.mdp.learning` in pieces: run on, tell how it went, be saved and restored."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from plaudit.mdp.learning import ALGORITHMS, Learned, Schedule, by_visits
from plaudit.mdp.learning.result import Walk, learned
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest

SHARED = ("mdp", "num_steps", "alpha", "epsilon", "seed", "max_episode_steps", "start")
"""Parameters of every learner that the job's own keys set."""


@dataclass
class Learner:
    """A learner under way.

    The episodes' returns are told with each piece and not kept: over a long run they would
    outgrow everything else.
    """

    mdp: MDP
    function: Callable[..., Learned]
    options: dict[str, Any]
    seed: int
    held: Learned | None = None
    num_episodes: int = 0

    def first_step(self) -> Learned:
        """What one step from the beginning leaves: checks the options, and shows the memory's form."""
        return self.function(self.mdp, num_steps=1, seed=self.seed, **self.options)

    @property
    def result(self) -> Learned:
        """What is known by now."""
        assert self.held is not None, "a learner has a result once it has taken a step"
        return self.held

    @property
    def num_steps(self) -> int:
        """Steps taken so far."""
        return 0 if self.held is None else self.held.num_steps

    def go_on(self, num_steps: int) -> dict[str, float]:
        """Takes so many steps more; returns what to log of them."""
        after = self.function(
            self.mdp, num_steps=num_steps, seed=self.seed, start=self.held, **self.options
        )
        metrics = {"value": float(self.mdp.initial @ after.value)}
        if after.episode_return.size:
            metrics |= {
                "episode/return": float(after.episode_return.mean()),
                "episode/length": float(after.episode_length.mean()),
            }
        self.num_episodes += after.episode_return.size
        metrics["episode/count"] = float(self.num_episodes)
        none = np.empty(0, np.int64)
        self.held = replace(after, episode_return=np.empty(0), episode_length=none)
        return metrics

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, facts): all that `restore` needs."""
        held = self.result
        arrays = {f"walk/{name}": array for name, array in held.walk._asdict().items()}
        arrays |= {f"memory/{i}": array for i, array in enumerate(held.memory)}
        return arrays, {"num_episodes": self.num_episodes}

    def restore(self, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Stands where the state was taken."""
        fresh = self.first_step()
        kept = [arrays[f"memory/{i}"] for i in range(len(fresh.memory))]
        kind: Any = type(fresh.memory)
        memory = kind(*kept) if hasattr(fresh.memory, "_fields") else tuple(kept)
        walk = Walk(**{name: arrays[f"walk/{name}"] for name in Walk._fields})
        none = np.empty(0, np.int64)
        self.held = learned(fresh.method, walk, memory, np.empty(0), none)
        self.num_episodes = facts["num_episodes"]


def learner_of(
    algorithm: str,
    mdp: MDP,
    *,
    alpha: float,
    alpha_power: float,
    epsilon: float,
    max_episode_steps: int | None,
    options: Mapping[str, str],
    seed: int,
) -> Learner:
    """A learner by name with its options.

    Errors: no such algorithm, an option that it does not take or that is no number.
    """
    if algorithm not in ALGORITHMS:
        hint = nearest(algorithm, ALGORITHMS)
        raise UserError(f"no learner {algorithm!r}{hint}; one of {', '.join(ALGORITHMS)}")
    function = ALGORITHMS[algorithm]
    own = [name for name in inspect.signature(function).parameters if name not in SHARED]
    rate: float | Schedule = by_visits(alpha_power, first=alpha) if alpha_power else alpha
    given: dict[str, Any] = {
        "alpha": rate,
        "epsilon": epsilon,
        "max_episode_steps": max_episode_steps,
    }
    for name, text in options.items():
        if name not in own:
            raise UserError(
                f"learner_options: {algorithm} takes no {name!r}{nearest(name, own)}; "
                f"it takes {', '.join(own)}"
            )
        try:
            given[name] = json.loads(text)
        except json.JSONDecodeError:
            raise UserError(f"learner_options: {name}={text!r} is not a number") from None
    learner = Learner(mdp, function, given, seed)
    learner.first_step()  # so that what it refuses is refused before anything is written
    return learner
