"""PPO with the clipped objective: many small steps on fresh experience, none too far.

    1. act for `num_steps` steps in every copy of the world;
    2. advantage by GAE, from the critic's values of what was seen;
    3. `num_epochs` times through the experience in minibatches: raise the probability of actions
       that did better than expected, by no more than the clip range; teach the critic the return.

Actor and critic are separate nets. Departures from the paper (Schulman et al. 2017, 1707.06347),
all usual: advantages are normalised in each minibatch, gradients are clipped by their norm, and an
epoch ends early where the policy has moved further than `max_kl`. Not here: the variant with a KL
penalty (`ppo_kl`), and policies with a memory (`ppo_recurrent`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field

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
from plaudit.nets.actions import Gaussian
from plaudit.nets.control_nets import Net, network
from plaudit.nets.fused_losses import ppo_terms, value_terms
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import ActorPolicy, actor
from plaudit.ops.value import explained_variance
from plaudit.records.events import Event
from plaudit.records.state import Saved


class PPOConfig(Loop):
    """Proximal policy optimisation with the clipped objective (Schulman et al. 2017)."""

    num_envs: int = Field(8, ge=1, description="Copies of the environment that act side by side.")
    num_steps: int = Field(
        128, ge=1, description="Steps of each copy between two updates (2017, table 5: 128)."
    )
    num_epochs: int = Field(10, ge=1, description="Times through each rollout (2017, table 3: 10).")
    minibatch_size: int = Field(
        64, ge=1, description="Steps behind one gradient step (2017, table 3: 64)."
    )
    gamma: float = Field(
        0.99, ge=0, le=1, description="Discount of the reward a step later (2017, table 3)."
    )
    lam: float = Field(0.95, ge=0, le=1, description="Decay of GAE (2017, table 3).")
    clip: float = Field(
        0.2, gt=0, lt=1, description="Half width of the range of the ratio (2017, section 6.1)."
    )
    clip_schedule: Schedule = Field(
        "constant", description="Whether the clip range falls to 0 over the run."
    )
    value_clip: float | None = Field(
        None, gt=0, description="Furthest a value may usefully move in an update; none: unbounded."
    )
    value_coef: float = Field(
        1.0, ge=0, description="Weight of half the squared error of the critic (2017, table 5: 1)."
    )
    entropy_coef: float = Field(
        0.0, ge=0, description="Weight of the entropy (2017, table 3: none)."
    )
    max_kl: float | None = Field(
        None,
        gt=0,
        description="KL from the acting policy beyond which an update ends; none: never.",
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


def ppo(
    config: PPOConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by PPO, from the beginning or from what was saved."""
    training = Training("ppo", config, worlds, reward, gamma=config.gamma)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(training.obs_spec, training.action_spec, rng=training.init_rng, **shape)
    critic = network(training.obs_spec, 1, rng=training.init_rng, gain_out=1.0, **shape)
    optimiser = FlatAdam([*policy.parameters(), *critic.parameters()], lr=config.lr, eps=1e-5)
    obs = training.begin(policy, saved, critic=Weights(critic), optimiser=optimiser)
    monitor = training.monitor

    def act(obs: Array) -> Array:
        return policy.act(obs, training.rng)

    while not monitor.finished:
        # Act. The policy is the same throughout, so its probabilities can be computed afterwards.
        seen = collect(training.worlds, act, obs, config.num_steps, to_env=policy.to_env)
        obs = seen.last_obs
        monitor.count(seen.num_steps, seen.episodes)

        # Credit.
        batch = advantage_batch(seen, policy, critic, gamma=config.gamma, lam=config.lam)

        # Improve.
        lr = scheduled(config.lr, config.lr_schedule, monitor.remaining)
        clip = scheduled(config.clip, config.clip_schedule, monitor.remaining)
        optimiser.lr = lr
        num_updates = 0
        for part in batch.minibatches(config.num_epochs, config.minibatch_size, training.rng):
            numbers, back = objective(config, policy, critic, part, clip)
            if config.max_kl is not None and numbers["policy/approxkl"] > config.max_kl:
                break
            grad_norm = descend(optimiser, back, config.max_grad_norm)
            monitor.add({**numbers, "grad_norm": grad_norm})
            num_updates += 1
        monitor.add({"policy/num_updates": num_updates, "lr": lr})
        monitor.add({"val/explained_variance": explained_variance(batch.value, batch.ret)})
        yield from monitor.events(training.parts)
    yield training.end()


def objective(
    config: PPOConfig, policy: ActorPolicy, critic: Net, part: Batch, clip: float
) -> tuple[dict[str, float], Callable[[], None]]:
    """Numbers of one minibatch to log, and the way back: it adds the loss's gradient to the nets'.

    mean of −min(ρA, clip(ρ, 1 ± clip)·A) − entropy_coef·H + value_coef·½(V − R)²

    `ops.clipped_surrogate`, `ops.entropy` and `ops.clipped_value_loss` are these formulas one by
    one; `ppo_terms` and `value_terms` give them with their gradients in one pass.
    """
    obs = part.obs.numpy()
    params, back_through_policy = policy.net.traced(obs)
    terms = ppo_terms(
        policy.head,
        params,
        part.action.numpy(),
        part.logp.numpy(),
        part.normalised_adv().numpy(),
        clip_low=clip,
        clip_high=clip,
        entropy_coef=config.entropy_coef,
    )
    value, back_through_critic = critic.traced(obs)
    old = None if config.value_clip is None else part.value.numpy()
    error, grad_value = value_terms(
        value[:, 0], part.ret.numpy(), value_old=old, clip=config.value_clip
    )

    def back() -> None:
        back_through_policy(terms.grad)
        if isinstance(policy.head, Gaussian) and terms.grad_log_std is not None:
            policy.head.log_std.grad = torch.from_numpy(terms.grad_log_std)
        back_through_critic(config.value_coef * grad_value[:, None])

    return {
        "loss/policy": terms.numbers.policy,
        "loss/value": error,
        "policy/entropy": terms.numbers.entropy,
        "policy/approxkl": terms.numbers.approxkl,
        "policy/clipfrac": terms.numbers.clipfrac,
    }, back
