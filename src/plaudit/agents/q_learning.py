"""Learning of action values from replay, whatever form the values have: settings and parts.

The config holds what the siblings share; each adds its own target and net.
"""

from __future__ import annotations

import copy
from typing import Generic, Literal, TypeVar

import numpy as np
from pydantic import Field
from torch import nn

from plaudit.agents.off_policy import OffPolicy
from plaudit.envs.replay import Batch, Replay
from plaudit.envs.replay_prioritised import PrioritisedReplay
from plaudit.envs.worlds import Worlds
from plaudit.nets.control_nets import arrays, load_arrays
from plaudit.nets.mlp import polyak_
from plaudit.records.state import Saved

M = TypeVar("M", bound=nn.Module)


class QLearning(OffPolicy):
    """The part of the configs of DQN and its siblings that they share."""

    buffer_size: int = Field(
        100_000, ge=1, description="Transitions remembered, of all copies (2015: 1,000,000 frames)."
    )
    batch_size: int = Field(128, ge=1, description="Chains in a gradient step (2015: 32).")
    learning_starts: int = Field(
        1000, ge=1, description="Environment steps before the first gradient step (2015: 50,000)."
    )
    train_every: int = Field(
        4, ge=1, description="Environment steps from one round of updates to the next (2015: 4)."
    )
    gradient_steps: int = Field(1, ge=1, description="Gradient steps in a round (2015: 1).")
    n_step: int = Field(3, ge=1, description="Longest chain of rewards (Hessel et al. 2018: 3).")
    replay: Literal["uniform", "prioritised"] = Field(
        "uniform", description="How transitions are drawn (prioritised: Schaul et al. 2016)."
    )
    priority_alpha: float = Field(
        0.6, ge=0, le=1, description="Power of a priority; 0: uniform (2016, table 3: 0.6)."
    )
    priority_beta: float = Field(
        0.4, ge=0, le=1, description="First power of importance weights; grows to 1 (2016: 0.4)."
    )
    target_every: int | None = Field(
        None,
        ge=1,
        description="Environment steps between copies into the target net; none: by tau.",
    )
    tau: float = Field(
        0.005, gt=0, le=1, description="Share that the target net moves before each gradient step."
    )
    epsilon_start: float = Field(1.0, ge=0, le=1, description="First chance of any action (2015).")
    epsilon_end: float = Field(
        0.05, ge=0, le=1, description="Last chance of any action (2015: 0.1)."
    )
    epsilon_fraction: float = Field(
        0.1, gt=0, le=1, description="Share of the run over which the chance falls (our choice)."
    )
    lr: float = Field(5e-4, gt=0, description="Step size of Adam (our choice for small nets).")
    lr_schedule: Literal["constant", "linear"] = Field(
        "linear", description="Whether lr falls to 0 over the run, so that the policy settles."
    )
    max_grad_norm: float = Field(
        10.0, gt=0, description="Length to which a gradient is cut (Wang et al. 2016: 10)."
    )
    hidden: tuple[int, ...] = Field((128, 128), description="Sizes of the hidden layers.")


class TargetNet(Generic[M]):
    """A copy of a net that follows it; `slow` is its name in checkpoints.

    With `every`, it becomes the net again whenever so many environment steps have gone by; without,
    it moves the share `tau` of the way before each gradient step. It begins equal to the net.
    """

    def __init__(self, source: M, *, every: int | None, tau: float) -> None:
        self.source = source
        self.net: M = copy.deepcopy(source).requires_grad_(False)
        self.every, self.tau = every, tau
        self._step = 0

    def follow(self, step: int) -> None:
        """To be called before each gradient step, at so many environment steps of all copies."""
        if self.every is None:
            polyak_(self.net, self.source, self.tau)
        elif step // self.every > self._step // self.every:
            polyak_(self.net, self.source, 1.0)
        self._step = step

    def state(self) -> Saved:
        """Weights, and when it followed last."""
        return arrays(self.net), {"step": self._step}

    def restore(self, saved: Saved) -> None:
        """Goes on from there."""
        load_arrays(self.net, saved[0])
        self._step = int(saved[1]["step"])


def epsilon(config: QLearning, step: int) -> float:
    """The chance of any action after `step` steps: a straight line to its end, then constant."""
    gone = min(1.0, step / (config.epsilon_fraction * config.steps))
    return config.epsilon_start + (config.epsilon_end - config.epsilon_start) * gone


def new_replay(config: QLearning, worlds: Worlds) -> Replay:
    """An empty replay of the kind that the config names."""
    specs = worlds.obs_spec, worlds.action_spec, worlds.num_envs
    size, gamma, n = config.buffer_size, config.gamma, config.n_step
    if config.replay == "uniform":
        return Replay(size, *specs, gamma=gamma, n=n)
    return PrioritisedReplay(size, *specs, gamma=gamma, n=n, alpha=config.priority_alpha)


def sample_batch(
    config: QLearning, replay: Replay, remaining: float, rng: np.random.Generator
) -> Batch:
    """A batch; the power of the weights goes from `priority_beta` to 1 as `remaining` goes to 0."""
    if isinstance(replay, PrioritisedReplay):
        beta = 1.0 - (1.0 - config.priority_beta) * remaining
        return replay.sample(config.batch_size, rng, beta=beta)
    return replay.sample(config.batch_size, rng)
