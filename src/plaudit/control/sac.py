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

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from plaudit.control.agent import Agent
from plaudit.control.loop import Draws, Keeper, Savable, Watch, Weights
from plaudit.control.off_policy import OffPolicy, act_and_learn, beginning
from plaudit.envs.make import make_worlds
from plaudit.envs.replay import Batch, Replay
from plaudit.envs.worlds import Array, Saved
from plaudit.models.control_nets import network
from plaudit.models.mlp import frozen, polyak_
from plaudit.models.optim import FlatAdam
from plaudit.models.policies import squashed_gaussian
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec, ObsSpec


class SACConfig(OffPolicy):
    """Soft actor-critic with a learned temperature (Haarnoja et al. 2018b)."""

    env: str = Field(
        "Pendulum-v1", description="A Gymnasium id whose actions are numbers between bounds."
    )
    lr: float = Field(
        3e-4, gt=0, description="Step size of Adam, for all three losses (2018b, table 1)."
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
        obs, next_obs = torch.from_numpy(batch.obs), torch.from_numpy(batch.next_obs)
        sample = self.policy.head.sample
        fresh, logp = sample(self.policy(obs), torch.from_numpy(noise[0]))
        entropy, alpha = -logp.detach().mean().item(), self.temperature.value
        self.temperature.step(entropy)

        with torch.no_grad():
            next_action, next_logp = sample(self.policy(next_obs), torch.from_numpy(noise[1]))
            next_q = self.target(joined(next_obs, next_action)).amin(0)[:, 0]
            y = soft_target(batch, next_q, next_logp, alpha)
        q = self.critic(joined(obs, torch.from_numpy(batch.action)))[..., 0]
        critic_loss = 0.5 * (q - y).square().mean(1).sum()
        descend(self.critic_optimiser, critic_loss)

        with frozen(self.critic):
            best_q = self.critic(joined(obs, fresh)).amin(0)[:, 0]
        actor_loss = (alpha * logp - best_q).mean()
        descend(self.actor_optimiser, actor_loss)

        polyak_(self.target, self.critic, self.tau)
        return {
            "loss/critic": critic_loss.item(),
            "loss/actor": actor_loss.item(),
            "q/mean": q.detach().mean().item(),
            "sac/alpha": alpha,
            "policy/entropy": entropy,
        }


class Temperature:
    """α, fixed or learned by Adam: L_α = log α · (H − H̄), so α falls while the entropy H is above H̄.

    A learned α begins at 1.
    """

    def __init__(self, fixed: float | None, target_entropy: float, lr: float) -> None:
        self.fixed, self.target_entropy = fixed, target_entropy
        self.log = nn.Parameter(torch.zeros(1))
        self._optimiser = FlatAdam([self.log], lr=lr)

    @property
    def value(self) -> float:
        """α as it is now."""
        return math.exp(self.log.item()) if self.fixed is None else self.fixed

    def step(self, entropy: float) -> None:
        """One gradient step on L_α, where α is learned; its gradient in log α is H − H̄."""
        if self.fixed is None:
            self.log.grad = torch.tensor([entropy - self.target_entropy])
            self._optimiser.step()

    def state(self) -> Saved:
        """log α and its optimiser."""
        arrays, facts = self._optimiser.state()
        return {**arrays, "log": self.log.detach().numpy().copy()}, facts

    def restore(self, saved: Saved) -> None:
        """Goes on from there."""
        with torch.no_grad():
            self.log.copy_(torch.from_numpy(saved[0]["log"]))
        self._optimiser.restore(saved)


def joined(obs: Tensor, action: Tensor) -> Tensor:
    """What a critic of actions takes: [B, observation + d], the observation's numbers first."""
    return torch.cat([obs.flatten(1).float(), action], 1)


def soft_target(batch: Batch, next_q: Tensor, next_logp: Tensor, alpha: float) -> Tensor:
    """r + γ(1 − terminated)·(Q̄(s', a') − α log π(a'|s')): all [B].

    Source: Haarnoja et al. 2018b, equations 2 and 3.
    """
    reward, discount = torch.from_numpy(batch.reward), torch.from_numpy(batch.discount)
    return reward + discount * (next_q - alpha * next_logp)


def descend(optimiser: FlatAdam, loss: Tensor) -> None:
    """One gradient step on `loss`."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def sac(config: SACConfig, saved: Saved | None = None) -> Iterator[Event]:
    """Trains an agent by SAC, from the beginning or from what was saved."""
    weights, draws = Draws(config.seed, 0), Draws(config.seed, 1)
    worlds = make_worlds(config, seed=config.seed)
    learner = Learner(config, worlds.obs_spec, worlds.action_spec, weights.rng)
    policy, rng = learner.policy, draws.rng
    replay = Replay(
        config.buffer_size,
        worlds.obs_spec,
        worlds.action_spec,
        worlds.num_envs,
        gamma=config.gamma,
    )
    agent = Agent("sac", config, policy, getattr(worlds, "statistics", None))
    watch = Watch(config, agent.batch(), agent.copy_statistics)
    keeper = Keeper(
        agent=agent, **learner.parts(), replay=replay, worlds=worlds, draws=draws, watch=watch
    )

    def explore(obs: Array) -> Array:
        if watch.step < config.learning_starts:
            return policy.head.random(len(obs), rng)
        return policy.act(obs, rng)

    def learn() -> Mapping[str, float]:
        batch = replay.sample(config.batch_size, rng)
        noise = rng.standard_normal((2, *batch.action.shape), dtype=np.float32)
        return learner.update(batch, noise)

    obs = beginning(worlds, replay, keeper, saved)
    yield from act_and_learn(
        config,
        obs,
        worlds=worlds,
        replay=replay,
        watch=watch,
        keeper=keeper,
        explore=explore,
        learn=learn,
        to_world=policy.to_env,
    )


__all__ = ["Learner", "SACConfig", "Temperature", "sac", "soft_target"]
