"""The loop of every algorithm that learns from a replay: act, store, and update now and then.

It holds none of the mathematics: an algorithm's file gives `explore` (what to do) and `learn` (one
gradient step on a batch that it draws itself), and hands over to `act_and_learn`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.loop import Loop
from plaudit.agents.training import Training
from plaudit.envs.replay import Replay
from plaudit.envs.worlds import Worlds
from plaudit.nets.mlp_kernels import F32
from plaudit.nets.optim import FlatAdam
from plaudit.records.errors import UserError
from plaudit.records.events import Event

Array = NDArray[Any]


class OffPolicy(Loop):
    """The part of every config that says what is remembered and how often it is learned from."""

    gamma: float = Field(0.99, gt=0, lt=1, description="Discount per step.")
    buffer_size: int = Field(
        1_000_000, ge=1, description="Transitions remembered, of all copies together."
    )
    batch_size: int = Field(256, ge=1, description="Transitions in a gradient step.")
    learning_starts: int = Field(
        100, ge=1, description="Environment steps before the first gradient step."
    )
    train_every: int = Field(
        1,
        ge=1,
        description="Environment steps, of all copies, from one round of updates to the next.",
    )
    gradient_steps: int = Field(1, ge=1, description="Gradient steps in a round of updates.")


def uniform_replay(config: OffPolicy, worlds: Worlds, *, n: int = 1) -> Replay:
    """An empty replay that draws chains of up to n steps, all equally likely."""
    specs = worlds.obs_spec, worlds.action_spec, worlds.num_envs
    return Replay(config.buffer_size, *specs, gamma=config.gamma, n=n)


def descend(optimiser: FlatAdam, back: Callable[[F32], None], grad: F32) -> None:
    """One gradient step on a loss whose gradient in a net's outputs is `grad`.

    `back` is what `Net.traced` gave with those outputs.
    """
    optimiser.zero_grad()
    back(grad)
    optimiser.step()


def check_finite(metrics: Mapping[str, float], step: int) -> None:
    """Raises UserError where learning has run away."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{name} is {value} at step {step}: values have grown beyond bounds, so lower lr or "
                "tau, or scale the rewards"
            )


def act_and_learn(
    training: Training,
    config: OffPolicy,
    obs: Array,
    replay: Replay,
    *,
    explore: Callable[[Array], Array],
    learn: Callable[[], Mapping[str, float]],
    to_world: Callable[[Array], Array] = lambda action: action,
) -> Iterator[Event]:
    """From `obs` to the end: one vector step, then the updates that fell due in it.

    `explore(obs)` gives the actions that are stored, `to_world(actions)` those that the worlds get;
    `learn()` takes one gradient step and gives its metrics. A vector step of 8 copies is 8 steps:
    with `train_every` 4 it is followed by two rounds of updates.
    """
    worlds, monitor = training.worlds, training.monitor
    if training.lost_episodes:
        replay.cut()
    while not monitor.finished:
        before = monitor.step
        action = explore(obs)
        moved = worlds.step(to_world(action))
        replay.add(obs, action, moved)
        obs = moved.obs
        monitor.count(int(moved.mask.sum()), moved.episodes)
        if monitor.step > config.learning_starts:
            rounds = monitor.step // config.train_every - before // config.train_every
            for _ in range(rounds * config.gradient_steps):
                metrics = learn()
                check_finite(metrics, monitor.step)
                monitor.add(metrics)
        yield from monitor.events(training.parts)
    yield training.end()
