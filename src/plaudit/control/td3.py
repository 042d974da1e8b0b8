"""TD3: a deterministic actor, and three cures for critics that flatter it.

    ã      = clip(π̄(s') + clip(σ̃·noise, ±c), ±1)            the target's action, smoothed
    y      = r + γ(1 − terminated)·min_i Q̄_i(s', ã)           the lesser of two critics
    L_Q    = Σ_i mean (Q_i(s, a) − y)²
    L_π    = −mean Q_1(s, π(s))                               every `policy_delay` steps only,
    Q̄, π̄   ← Q̄ + τ(Q − Q̄), π̄ + τ(π − π̄)                      together with both targets

It acts by clip(π(s) + σ·noise, ±1). Actions are in (−1, 1) whatever the world's range, so both
noises are in units of half that range; only the world's own action is stretched.

Source: Fujimoto et al. 2018 (1802.09477), algorithm 1 and appendix C.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.loop import Weights
from plaudit.agents.off_policy import OffPolicy, act_and_learn, descend, uniform_replay
from plaudit.agents.training import Training
from plaudit.agents.twin_critics import critic_input, first_q
from plaudit.envs.replay import Batch
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.control_nets import network
from plaudit.nets.mlp import polyak_
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import deterministic
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Savable, Saved

F32 = NDArray[np.float32]


class TD3Config(OffPolicy):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""

    env: str = Field(
        "Pendulum-v1", description="A Gymnasium id whose actions are numbers between bounds."
    )
    lr: float = Field(
        1e-3, gt=0, description="Step size of Adam, for actor and critics (2018, section 6.1)."
    )
    tau: float = Field(
        0.005, gt=0, le=1, description="Share of the nets that moves into their targets (2018)."
    )
    noise: float = Field(
        0.1,
        ge=0,
        description="Deviation of the exploring noise, in half ranges (2018, appendix C).",
    )
    target_noise: float = Field(
        0.2, ge=0, description="Deviation of the noise on target actions, in half ranges (2018)."
    )
    target_noise_clip: float = Field(
        0.5, ge=0, description="Largest noise on a target action, in half ranges (2018)."
    )
    policy_delay: int = Field(
        2, ge=1, description="Gradient steps of the critics for one of actor and targets (2018)."
    )
    n_step: int = Field(
        1, ge=1, description="Steps whose rewards a target sums before it bootstraps (2018: 1)."
    )
    hidden: tuple[int, ...] = Field(
        (256, 256),
        description="Sizes of the hidden layers, which rectify (2018, the authors' code).",
    )


class Learner:
    """Actor and twin critics with their targets, and a gradient step of each."""

    def __init__(
        self,
        config: TD3Config,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        rng: np.random.Generator,
    ) -> None:
        self.config = config
        self.policy = deterministic(
            obs_spec, action_spec, rng=rng, hidden=config.hidden, noise_std=config.noise
        )
        self.critic = network(
            obs_spec,
            1,
            hidden=config.hidden,
            activation="relu",
            rng=rng,
            init="uniform",
            copies=2,
            extra_inputs=action_spec.sizes[0],
        )
        self.policy_target = copy.deepcopy(self.policy).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimiser = FlatAdam(self.policy.parameters(), lr=config.lr)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), lr=config.lr)

    def parts(self) -> dict[str, Savable]:
        """All that is kept, except the policy."""
        return {
            "critic": Weights(self.critic),
            "policy_target": Weights(self.policy_target),
            "critic_target": Weights(self.critic_target),
            "actor_optimiser": self.actor_optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def update(self, batch: Batch, noise: F32) -> dict[str, float]:
        """One gradient step of the critics, and when its turn has come one of the actor.

        `noise` [B, d] is N(0, 1).
        """
        config = self.config
        next_action = smoothed(
            self.policy_target.act(batch.next_obs, None),
            noise,
            std=config.target_noise,
            clip=config.target_noise_clip,
        )
        next_q = self.critic_target.infer(critic_input(batch.next_obs, next_action))[..., 0].min(0)
        y = batch.reward + batch.discount * next_q
        q, critic_back = self.critic.traced(critic_input(batch.obs, batch.action))
        error = q[..., 0] - y
        descend(self.critic_optimiser, critic_back, error[..., None] * np.float32(2 / len(y)))
        metrics = {
            "loss/critic": float((error**2).sum()) / len(y),
            "q/mean": float(q.mean()),
        }
        if self.critic_optimiser.num_steps % config.policy_delay == 0:
            metrics["loss/actor"] = self._improve(batch)
            polyak_(self.policy_target, self.policy, config.tau)
            polyak_(self.critic_target, self.critic, config.tau)
        return metrics

    def _improve(self, batch: Batch) -> float:
        """One gradient step of the actor; L_π."""
        params, actor_back = self.policy.net.traced(batch.obs)
        action = self.policy.head.mode(params)
        q, slope = first_q(self.critic, batch.obs, action)
        of_params = slope * (1 - action**2)  # d tanh u/du = 1 − tanh² u
        descend(self.actor_optimiser, actor_back, np.float32(-1 / len(q)) * of_params)
        return -float(q.mean())


def smoothed(action: F32, noise: F32, *, std: float, clip: float) -> F32:
    """clip(a + clip(std·noise, ±clip), ±1): near actions are to have near values. All [B, d].

    Source: Fujimoto et al. 2018, section 5.3.
    """
    moved: F32 = action + np.clip(np.float32(std) * noise, np.float32(-clip), np.float32(clip))
    return np.clip(moved, np.float32(-1), np.float32(1)).astype(np.float32, copy=False)


def td3(
    config: TD3Config,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by TD3, from the beginning or from what was saved."""
    training = Training("td3", config, worlds, reward, gamma=config.gamma)
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
        batch = replay.sample(config.batch_size, rng)
        noise = rng.standard_normal(batch.action.shape, dtype=np.float32)
        return learner.update(batch, noise)

    yield from act_and_learn(
        training, config, obs, replay, explore=explore, learn=learn, to_world=policy.to_env
    )


__all__ = ["Learner", "TD3Config", "smoothed", "td3"]
