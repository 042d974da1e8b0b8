"""PPO with a KL penalty: small steps on fresh experience, held near the policy that acted.

As `ppo`, but what keeps a step small is a price on its distance and not a clip range:

    L = mean of −ρA + β·KL(π_old(·|s)‖π(·|s)) + value_coef·½(V − R)² − entropy_coef·H,   ρ = π/π_old

After each update, with d the mean KL between the policy that acted and the new one:

    d > 1.5·kl_target: β ← 2β;      d < kl_target/1.5: β ← β/2, not below KL_COEF_FLOOR

Source: Schulman et al. 2017 (1707.06347), section 4. The divergence is that of the whole
distributions in each state, not an estimate from the actions taken. Departures, as in `ppo`:
separate nets, advantages normalised in each minibatch, gradients clipped by their norm. The floor
is ours: without it a β that is halved for long enough is 0, which no doubling leads out of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.agents.loop import Loop, Weights
from plaudit.agents.on_policy import (
    Batch,
    Schedule,
    advantage_batch,
    descend,
    scheduled,
)
from plaudit.agents.training import Training
from plaudit.envs.rewarded import StepReward
from plaudit.envs.rollout import collect
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.control_nets import Net, network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import ActorPolicy, actor
from plaudit.ops.policy import kl_penalised_surrogate
from plaudit.ops.value import explained_variance
from plaudit.records.events import Event
from plaudit.records.state import Saved

KL_COEF_FLOOR = 1e-4
"""Least β: fourteen doublings lead from it back to 1, and it is too small to hold anything."""


class PPOKLConfig(Loop):
    """Proximal policy optimisation with an adaptive KL penalty (Schulman et al. 2017, section 4)."""

    num_envs: int = Field(8, ge=1, description="Copies of the environment that act side by side.")
    num_steps: int = Field(
        128, ge=1, description="Steps of each copy between two updates (2017, table 5: 128)."
    )
    num_epochs: int = Field(10, ge=1, description="Times through each rollout (2017, table 3: 10).")
    minibatch_size: int = Field(
        64, ge=1, description="Steps behind one gradient step (2017, table 3: 64)."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount (2017, table 3).")
    lam: float = Field(0.95, ge=0, le=1, description="Decay of GAE (2017, table 3).")
    kl_coef: float = Field(
        1.0, ge=KL_COEF_FLOOR, description="First β, the price of a nat (2017, section 6.1: 1)."
    )
    kl_target: float = Field(
        0.01, gt=0, description="Nats that an update is to move the policy (2017, table 1: 0.01)."
    )
    value_coef: float = Field(
        1.0, ge=0, description="Weight of half the squared error of the critic (2017, table 5: 1)."
    )
    entropy_coef: float = Field(
        0.0, ge=0, description="Weight of the entropy (2017, table 3: none)."
    )
    lr: float = Field(3e-4, gt=0, description="Step size of Adam (2017, table 3).")
    lr_schedule: Schedule = Field("constant", description="Whether lr falls to 0 over the run.")
    max_grad_norm: float = Field(
        0.5, gt=0, description="Length to which a gradient is cut (Huang et al. 2022, detail 11)."
    )
    hidden: tuple[int, ...] = Field(
        (64, 64), description="Sizes of the hidden layers (2017, section 6.1)."
    )
    activation: Literal["tanh", "relu"] = Field("tanh", description="As in 2017, section 6.1.")


@dataclass
class Penalty:
    """β, and how it follows the distance that updates move the policy."""

    coef: float
    target: float

    def adapt(self, kl: float) -> None:
        """Doubles where an update moved further than 1.5 targets, halves where less than 1/1.5."""
        if kl > 1.5 * self.target:
            self.coef *= 2.0
        elif kl < self.target / 1.5:
            self.coef = max(self.coef / 2.0, KL_COEF_FLOOR)

    def state(self) -> Saved:
        """β."""
        return {}, {"coef": self.coef}

    def restore(self, saved: Saved) -> None:
        """Goes on with it."""
        self.coef = saved[1]["coef"]


def ppo_kl(
    config: PPOKLConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by PPO with a KL penalty, from the beginning or from what was saved."""
    training = Training("ppo_kl", config, worlds, reward, gamma=config.gamma)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(training.obs_spec, training.action_spec, rng=training.init_rng, **shape)
    critic = network(training.obs_spec, 1, rng=training.init_rng, gain_out=1.0, **shape)
    optimiser = FlatAdam([*policy.parameters(), *critic.parameters()], lr=config.lr, eps=1e-5)
    penalty = Penalty(config.kl_coef, config.kl_target)
    obs = training.begin(
        policy, saved, critic=Weights(critic), optimiser=optimiser, penalty=penalty
    )
    monitor = training.monitor

    def act(obs: Array) -> Array:
        return policy.act(obs, training.rng)

    while not monitor.finished:
        seen = collect(training.worlds, act, obs, config.num_steps, to_env=policy.to_env)
        obs = seen.last_obs
        monitor.count(seen.num_steps, seen.episodes)
        batch = advantage_batch(seen, policy, critic, gamma=config.gamma, lam=config.lam)
        optimiser.lr = scheduled(config.lr, config.lr_schedule, monitor.remaining)

        old = distributions(policy, batch)
        for part, old_part in parts(config, batch, old, training.rng):
            loss, numbers = objective(config, policy, critic, part, old_part, penalty.coef)
            monitor.add(
                {**numbers, "grad_norm": descend(optimiser, loss.backward, config.max_grad_norm)}
            )
        kl = distance(policy, batch, old)
        monitor.add({"policy/kl": kl, "kl_coef": penalty.coef, "lr": optimiser.lr})
        monitor.add({"val/explained_variance": explained_variance(batch.value, batch.ret)})
        penalty.adapt(kl)
        yield from monitor.events(training.parts)
    yield training.end()


def objective(
    config: PPOKLConfig,
    policy: ActorPolicy,
    critic: Net,
    part: Batch,
    old: Tensor,
    kl_coef: float,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one minibatch, and numbers to log; `old` are the distributions that acted."""
    params = policy(part.obs)
    logp = policy.head.logp(params, part.action)
    kl = policy.head.kl(old, params)
    adv = part.normalised_adv()
    gain = kl_penalised_surrogate(logp, part.logp, adv, kl, kl_coef=kl_coef).mean()
    error = 0.5 * ((critic(part.obs).squeeze(-1) - part.ret) ** 2).mean()
    entropy = policy.head.entropy(params).mean()
    loss = gain + config.value_coef * error - config.entropy_coef * entropy
    return loss, {
        "loss/policy": gain.item(),
        "loss/value": error.item(),
        "policy/entropy": entropy.item(),
    }


def distributions(policy: ActorPolicy, batch: Batch) -> Tensor:
    """What the policy does in each state of a batch, as `Head.kl` takes it."""
    with torch.no_grad():
        return policy.head.snapshot(policy(batch.obs))


def distance(policy: ActorPolicy, batch: Batch, old: Tensor) -> float:
    """Mean over a batch's states of KL(old‖π)."""
    with torch.no_grad():
        return policy.head.kl(old, policy(batch.obs)).mean().item()


def parts(
    config: PPOKLConfig, batch: Batch, old: Tensor, rng: np.random.Generator
) -> Iterator[tuple[Batch, Tensor]]:
    """Minibatches with their old distributions, all steps once an epoch, each time shuffled."""
    for _ in range(config.num_epochs):
        order = torch.from_numpy(rng.permutation(len(batch)))
        for begin in range(0, len(batch), config.minibatch_size):
            rows = order[begin : begin + config.minibatch_size]
            columns = (getattr(batch, field.name)[rows] for field in fields(batch))
            yield Batch(*columns), old[rows]
