"""SAC: act as randomly as the task allows, and learn from everything that was ever tried.

The return counts the policy's entropy as a reward, weighted by a temperature α:

    y      = r + γ(1 − terminated)·(min_i Q̄_i(s', a') − α log π(a'|s')),       a' ~ π(s')
    L_Q    = Σ_i mean ½(Q_i(s, a) − y)²
    L_π    = mean(α log π(a|s) − min_i Q_i(s, a)),                              a ~ π(s)
    L_α    = −log α · mean(log π(a|s) + H̄),                                     H̄ = −dimensions
    Q̄      ← Q̄ + τ(Q − Q̄)

π is a Gaussian squashed by tanh, and a is drawn as tanh(μ + σ·noise), so that L_π is differentiated
through a. Each gradient step moves α, the critics, the actor and the targets, in this order.

Source: Haarnoja et al. 2018b (1812.05905), section 5 and algorithm 1. Departure: log α is weighted
by the entropy's error and not α, as in the authors' code, so that its step size is its own. Actions
are in (−1, 1) whatever the world's range, and so is the density that H̄ is about.
Left out: the value net of the first version (Haarnoja et al. 2018a). For choices: `sac_discrete`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.loop import Weights
from plaudit.agents.off_policy import OffPolicy, act_and_learn, descend, uniform_replay
from plaudit.agents.temperature import Temperature
from plaudit.agents.training import Training
from plaudit.agents.twin_critics import critic_input, least_q
from plaudit.envs.replay import Batch
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.actions import LOG_STD_HIGH, LOG_STD_LOW
from plaudit.nets.control_nets import network
from plaudit.nets.mlp import polyak_
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import squashed_gaussian
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Savable, Saved

F32 = NDArray[np.float32]
LOG_2, HALF_LOG_2PI = np.float32(math.log(2)), np.float32(0.5 * math.log(2 * math.pi))


class SACConfig(OffPolicy):
    """Soft actor-critic with a learned temperature (Haarnoja et al. 2018b)."""

    env: str = Field(
        "Pendulum-v1", description="A Gymnasium id whose actions are numbers between bounds."
    )
    lr: float = Field(
        3e-4, gt=0, description="Step size of Adam, for all three losses (2018b, table 1)."
    )
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="Whether lr falls to 0 over the run (2018b: constant)."
    )
    tau: float = Field(
        0.005, gt=0, le=1, description="Share of the critics that moves into their targets (2018b)."
    )
    alpha: float | None = Field(
        None, ge=0, description="Temperature, in units of reward per nat; none: learned (2018b)."
    )
    target_entropy: float | None = Field(
        None, description="Nats that a learned α steers to; none: −dimensions (2018b, table 1)."
    )
    n_step: int = Field(
        1, ge=1, description="Steps whose rewards a target sums before it bootstraps (2018b: 1)."
    )
    hidden: tuple[int, ...] = Field(
        (256, 256), description="Sizes of the hidden layers, which rectify (2018b, table 1)."
    )


class Learner:
    """The actor, twin critics with their targets, the temperature, and a gradient step of each."""

    def __init__(
        self,
        config: SACConfig,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        rng: np.random.Generator,
    ) -> None:
        self.policy = squashed_gaussian(obs_spec, action_spec, rng=rng, hidden=config.hidden)
        num_dims = action_spec.sizes[0]
        self.critic = network(
            obs_spec,
            1,
            hidden=config.hidden,
            activation="relu",
            rng=rng,
            init="uniform",
            copies=2,
            extra_inputs=num_dims,
        )
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.tau = config.tau
        wanted = config.target_entropy
        wanted = -float(num_dims) if wanted is None else wanted
        self.temperature = Temperature(config.alpha, wanted, config.lr)
        self.actor_optimiser = FlatAdam(self.policy.parameters(), lr=config.lr)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), lr=config.lr)

    @property
    def lr(self) -> float:
        """Step size of every optimiser."""
        return self.critic_optimiser.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        for optimiser in (
            self.actor_optimiser,
            self.critic_optimiser,
            self.temperature.optimiser,
        ):
            optimiser.lr = lr

    def parts(self) -> dict[str, Savable]:
        """All that is kept, except the policy."""
        return {
            "critic": Weights(self.critic),
            "target": Weights(self.target),
            "temperature": self.temperature,
            "actor_optimiser": self.actor_optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def update(self, batch: Batch, noise: NDArray[np.float32]) -> dict[str, float]:
        """One gradient step of everything; `noise` [2, B, d] is N(0, 1) for s and s'."""
        params, actor_back = self.policy.net.traced(batch.obs)
        fresh = Draw.of(params, noise[0])
        entropy, alpha = -float(fresh.logp.mean()), self.temperature.value
        self.temperature.step(entropy)

        then = Draw.of(self.policy.net.infer(batch.next_obs), noise[1])
        next_q = self.target.infer(critic_input(batch.next_obs, then.action))[..., 0].min(0)
        y = soft_target(batch, next_q, then.logp, alpha)
        q, critic_back = self.critic.traced(critic_input(batch.obs, batch.action))
        error = q[..., 0] - y
        descend(self.critic_optimiser, critic_back, error[..., None] / np.float32(len(y)))

        best_q, slope = least_q(self.critic, batch.obs, fresh.action)
        share = np.float32(1 / len(y))
        grad = fresh.gradient(of_action=-share * slope, of_logp=share * np.float32(alpha))
        descend(self.actor_optimiser, actor_back, grad)

        polyak_(self.target, self.critic, self.tau)
        return {
            "loss/critic": 0.5 * float((error**2).sum()) / len(y),
            "loss/actor": -alpha * entropy - float(best_q.mean()),
            "q/mean": float(q.mean()),
            "sac/alpha": alpha,
            "policy/entropy": entropy,
            "lr": self.lr,
        }


@dataclass(frozen=True, slots=True)
class Draw:
    """Actions tanh(μ + σ·noise) of a squashed Gaussian, and how they change with μ and log σ.

    What `SquashedGaussian.sample` and autograd give, without autograd: some thirty operations on
    a few hundred numbers cost it more than they are worth.
    """

    action: F32
    """[B, d] in (−1, 1)."""
    logp: F32
    """[B] Σ log N(u) − 2(log 2 − u − softplus(−2u)), with u = μ + σ·noise."""
    spread: F32
    """[B, d] σ·noise, how u changes with log σ; 0 where log σ is at the end of its range."""
    inside: NDArray[np.bool_]
    """[B, d] where log σ is within its range."""

    @classmethod
    def of(cls, params: F32, noise: F32) -> Draw:
        """From params [B, 2d] = (μ, log σ) and N(0, 1) noise [B, d]."""
        num_dims = noise.shape[1]
        mean, raw = params[:, :num_dims], params[:, num_dims:]
        log_std = np.minimum(np.maximum(raw, LOG_STD_LOW), LOG_STD_HIGH)
        spread = np.exp(log_std) * noise
        u = mean + spread
        squash = 2 * (LOG_2 - u - np.logaddexp(np.float32(0), -2 * u))
        logp = -(0.5 * noise * noise + log_std + HALF_LOG_2PI + squash).sum(1)
        return cls(np.tanh(u), logp, spread, raw == log_std)

    def gradient(self, *, of_action: F32, of_logp: np.float32) -> F32:
        """The gradient in params [B, 2d] of a loss whose gradients in a [B, d] and log π are given.

        da/du = 1 − a²; d log π/du = 2a, as 1 − 2·sigmoid(−2u) = tanh u; d log π/d log σ has −1 more.
        """
        of_u = of_action * (1 - self.action**2) + of_logp * 2 * self.action
        return np.concatenate([of_u, (of_u * self.spread - of_logp) * self.inside], 1)


def soft_target(batch: Batch, next_q: F32, next_logp: F32, alpha: float) -> F32:
    """r + γ(1 − terminated)·(min Q̄(s', a') − α log π(a'|s')): all [B].

    Source: Haarnoja et al. 2018b, equations 2 and 3.
    """
    target: F32 = batch.reward + batch.discount * (next_q - np.float32(alpha) * next_logp)
    return target


def sac(
    config: SACConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by SAC, from the beginning or from what was saved."""
    training = Training("sac", config, worlds, reward, gamma=config.gamma)
    learner = Learner(config, training.obs_spec, training.action_spec, training.init_rng)
    policy, rng = learner.policy, training.rng
    replay = uniform_replay(config, training.worlds, n=config.n_step)
    obs = training.begin(policy, saved, **learner.parts(), replay=replay)
    monitor = training.monitor

    def explore(obs: Array) -> Array:
        if monitor.step < config.learning_starts:
            return policy.head.random(len(obs), rng)
        return policy.act(obs, rng)

    def learn() -> Mapping[str, float]:
        learner.lr = config.lr * (monitor.remaining if config.lr_schedule == "linear" else 1.0)
        batch = replay.sample(config.batch_size, rng)
        noise = rng.standard_normal((2, *batch.action.shape), dtype=np.float32)
        return learner.update(batch, noise)

    yield from act_and_learn(
        training, config, obs, replay, explore=explore, learn=learn, to_world=policy.to_env
    )


__all__ = ["Draw", "Learner", "SACConfig", "sac", "soft_target"]
