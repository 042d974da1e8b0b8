"""SAC where an action is a choice: expectations over all actions, where `sac` draws one.

    y      = r + γ(1 − terminated)·Σ_a' π(a'|s')(min_i Q̄_i(s', a') − α log π(a'|s'))
    L_Q    = Σ_i mean ½(Q_i(s, a) − y)²
    L_π    = mean Σ_a π(a|s)(α log π(a|s) − min_i Q_i(s, a))
    L_α    = log α · (mean H(π(·|s)) − H̄),                       H̄ = a share of log A
    Q̄      ← Q̄ + τ(Q − Q̄)

The critics give the values of all actions at once, so nothing is sampled in a gradient step and L_π
needs no gradient through an action. Where actions are masked, π is 0 off the mask, and log A in H̄ is the
mean of the logarithms of how many are allowed.

Source: Christodoulou 2019 (1910.07207), section 4. Departure: log α is weighted by the entropy's
error and not α, as in `sac`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.loop import Weights
from plaudit.agents.off_policy import OffPolicy, act_and_learn, descend, uniform_replay
from plaudit.agents.temperature import Temperature
from plaudit.agents.training import Training
from plaudit.envs.replay import Batch
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.action_values import any_action
from plaudit.nets.actions import Categorical
from plaudit.nets.control_nets import network
from plaudit.nets.mlp import polyak_
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import Policy
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Savable, Saved

F32 = NDArray[np.float32]


class SACDiscreteConfig(OffPolicy):
    """Soft actor-critic for choices, with a learned temperature (Christodoulou 2019)."""

    env: str = Field(
        "CartPole-v1", description="A Gymnasium id whose action is one choice of several."
    )
    lr: float = Field(3e-4, gt=0, description="Step size of Adam, for all losses (2019, table 2).")
    tau: float = Field(
        0.005, gt=0, le=1, description="Share of the critics that moves into their targets."
    )
    alpha: float | None = Field(
        None, ge=0, description="Temperature, in units of reward per nat; none: learned (2019)."
    )
    target_entropy: float = Field(
        0.98,
        gt=0,
        lt=1,
        description="What a learned α steers to, as a share of the most, log A (the author's code).",
    )
    hidden: tuple[int, ...] = Field(
        (256, 256), description="Sizes of the hidden layers, which rectify."
    )


LOG_NONE = np.float32(-1e30)
"""In place of log 0: its exponential is exactly 0, and its products with 0 are too."""


class Learner:
    """The actor, twin critics with their targets, the temperature, and a gradient step of each."""

    def __init__(
        self,
        config: SACDiscreteConfig,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        rng: np.random.Generator,
    ) -> None:
        head = Categorical(action_spec)
        num_actions = head.num_params
        shape: dict[str, Any] = {"hidden": config.hidden, "activation": "relu", "init": "uniform"}
        bars = obs_spec.num_barred > 0
        self.policy = Policy(network(obs_spec, num_actions, rng=rng, bars=bars, **shape), head)
        self.critic = network(obs_spec, num_actions, rng=rng, copies=2, **shape)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.tau = config.tau
        self.target_entropy = config.target_entropy
        wanted = config.target_entropy * math.log(num_actions)
        self.temperature = Temperature(config.alpha, wanted, config.lr)
        self.actor_optimiser = FlatAdam(self.policy.parameters(), lr=config.lr)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), lr=config.lr)

    def parts(self) -> dict[str, Savable]:
        """All that is kept, except the policy."""
        return {
            "critic": Weights(self.critic),
            "target": Weights(self.target),
            "temperature": self.temperature,
            "actor_optimiser": self.actor_optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def _out_of_reach(self, batch: Batch) -> float:
        """What masks take from the most entropy that H̄ is a share of, over a batch; 0 without."""
        if not self.policy.net.num_barred:
            return 0.0
        num_allowed = self.policy.net.allowed(batch.obs).sum(1)
        most = math.log(self.policy.head.num_params)
        return self.target_entropy * float((most - np.log(num_allowed)).mean())

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step of everything."""
        num_rows = len(batch.action)
        share, rows = np.float32(1 / num_rows), np.arange(num_rows)
        logits, actor_back = self.policy.net.traced(batch.obs)
        logp = log_softmax(logits)
        entropy = -float((np.exp(logp) * logp).sum(1).mean())
        alpha = self.temperature.value
        self.temperature.step(entropy + self._out_of_reach(batch))

        next_logp = log_softmax(self.policy.net.infer(batch.next_obs))
        next_q = self.target.infer(batch.next_obs).min(0)
        y = batch.reward + batch.discount * soft_value(next_q, next_logp, alpha)
        q, critic_back = self.critic.traced(batch.obs)
        error = q[:, rows, batch.action] - y
        of_q = np.zeros_like(q)
        of_q[:, rows, batch.action] = share * error
        descend(self.critic_optimiser, critic_back, of_q)

        best_q = self.critic.infer(batch.obs).min(0)
        value = soft_value(best_q, logp, alpha)
        descend(self.actor_optimiser, actor_back, share * of_logits(best_q, logp, value, alpha))

        polyak_(self.target, self.critic, self.tau)
        return {
            "loss/critic": 0.5 * float((error**2).sum()) / num_rows,
            "loss/actor": -float(value.mean()),
            "q/mean": float(q[:, rows, batch.action].mean()),
            "sac/alpha": alpha,
            "policy/entropy": entropy,
        }


def log_softmax(logits: F32) -> F32:
    """log π [B, A] of logits [B, A]; LOG_NONE where a logit is −inf, so that π·log π is 0 there."""
    shifted = logits - logits.max(1, keepdims=True)
    logp: F32 = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return np.maximum(logp, LOG_NONE)


def soft_value(q: F32, logp: F32, alpha: float) -> F32:
    """V(s) = Σ_a π(a|s)(Q(s, a) − α log π(a|s)): [B] from [B, A] and [B, A].

    Source: Christodoulou 2019, equation 10.
    """
    value: F32 = (np.exp(logp) * (q - np.float32(alpha) * logp)).sum(1)
    return value


def of_logits(q: F32, logp: F32, value: F32, alpha: float) -> F32:
    """The gradient of −V(s) in the logits [B, A]: π(a|s)·(α log π(a|s) − Q(s, a) + V(s)).

    Each row sums to 0, and it is 0 everywhere at π ∝ exp(Q/α).
    """
    grad: F32 = np.exp(logp) * (np.float32(alpha) * logp - q + value[:, None])
    return grad


def sac_discrete(
    config: SACDiscreteConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by SAC for choices, from the beginning or from what was saved."""
    training = Training("sac_discrete", config, worlds, reward, gamma=config.gamma)
    learner = Learner(config, training.obs_spec, training.action_spec, training.init_rng)
    policy, rng = learner.policy, training.rng
    replay = uniform_replay(config, training.worlds)
    obs = training.begin(policy, saved, **learner.parts(), replay=replay)
    monitor = training.monitor

    def explore(obs: Array) -> Array:
        if monitor.step < config.learning_starts:
            num_actions = training.action_spec.sizes[0]
            if policy.net.num_barred:
                return any_action(num_actions, policy.net.allowed(obs), rng)
            return rng.integers(0, num_actions, len(obs))
        return policy.act(obs, rng)

    def learn() -> Mapping[str, float]:
        return learner.update(replay.sample(config.batch_size, rng))

    yield from act_and_learn(training, config, obs, replay, explore=explore, learn=learn)


__all__ = ["Learner", "SACDiscreteConfig", "sac_discrete"]
