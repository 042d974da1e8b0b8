"""A2C: a small step on a few fresh steps of many copies, all in step with one another.

    1. act for `num_steps` steps in every copy of the world;
    2. advantage: the discounted rewards to the end of those steps, and the critic's value of where
       they led, less the critic's value of where they began (`lam` 1; below it, GAE);
    3. one gradient step on all of it: −log π·A, half the squared error of the critic, entropy.

    L = mean of −log π(a|s)·A − entropy_coef·H(π) + value_coef·½(V − R)²,   R = A + V

Source: Mnih et al. 2016 (1602.01783), algorithm S3, with copies that wait for one another in place
of asynchronous workers (those are in `a3c`). Departures: actor and critic are separate nets, and
the loss is a mean over the steps, not a sum. Not here: a shared trunk, normalised advantages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from plaudit.agents.actor_critic import objective
from plaudit.agents.loop import Loop, Weights
from plaudit.agents.on_policy import Schedule, descend, scheduled
from plaudit.agents.training import Training
from plaudit.envs.rewarded import StepReward
from plaudit.envs.rollout import collect
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.control_nets import network
from plaudit.nets.optim import FlatRMSprop
from plaudit.nets.policies import actor
from plaudit.records.events import Event
from plaudit.records.state import Saved


class A2CConfig(Loop):
    """Advantage actor-critic with copies in step (Mnih et al. 2016)."""

    num_envs: int = Field(
        8, ge=1, description="Copies of the environment that act side by side (2016: 16 workers)."
    )
    num_steps: int = Field(
        5, ge=1, description="Steps of each copy behind one gradient step (2016, section 8: 5)."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount (2016, section 8).")
    lam: float = Field(
        1.0, ge=0, le=1, description="Decay of GAE; 1 is the n-step return (2016, algorithm S3)."
    )
    value_coef: float = Field(
        1.0, ge=0, description="Weight of half the squared error of the critic."
    )
    entropy_coef: float = Field(
        0.0, ge=0, description="Weight of the entropy (2016, section 8: 0.01 on Atari)."
    )
    lr: float = Field(7e-4, gt=0, description="Step size of RMSprop (2016, figure S11: near 7e-4).")
    lr_schedule: Schedule = Field(
        "constant", description="Whether lr falls to 0 over the run (2016, section 8: it does)."
    )
    eps: float = Field(
        1e-5,
        gt=0,
        description="Added to RMSprop's mean square, inside the root (OpenAI's A2C: 1e-5); a smaller "
        "one where the critic's error is large, so that the actor's part of the cut gradient counts.",
    )
    max_grad_norm: float = Field(
        0.5, gt=0, description="Length to which a gradient is cut (OpenAI's A2C)."
    )
    hidden: tuple[int, ...] = Field((64, 64), description="Sizes of the hidden layers.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between the layers.")


def a2c(
    config: A2CConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by A2C, from the beginning or from what was saved."""
    training = Training("a2c", config, worlds, reward, gamma=config.gamma)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(training.obs_spec, training.action_spec, rng=training.init_rng, **shape)
    critic = network(training.obs_spec, 1, rng=training.init_rng, gain_out=1.0, **shape)
    optimiser = FlatRMSprop(
        [*policy.parameters(), *critic.parameters()], lr=config.lr, eps=config.eps
    )
    obs = training.begin(policy, saved, critic=Weights(critic), optimiser=optimiser)
    monitor = training.monitor

    def act(obs: Array) -> Array:
        return policy.act(obs, training.rng)

    while not monitor.finished:
        optimiser.lr = scheduled(config.lr, config.lr_schedule, monitor.remaining)
        seen = collect(training.worlds, act, obs, config.num_steps, to_env=policy.to_env)
        obs = seen.last_obs
        monitor.count(seen.num_steps, seen.episodes)
        numbers, back = objective(
            policy,
            critic,
            seen,
            gamma=config.gamma,
            lam=config.lam,
            value_coef=config.value_coef,
            entropy_coef=config.entropy_coef,
        )
        grad_norm = descend(optimiser, back, config.max_grad_norm)
        monitor.add({**numbers, "grad_norm": grad_norm, "lr": optimiser.lr})
        yield from monitor.events(training.parts)
    yield training.end()
