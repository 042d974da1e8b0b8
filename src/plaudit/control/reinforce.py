"""REINFORCE: whole episodes, and each action made as likely as what came after it was good.

    1. every copy of the world plays `num_episodes` episodes from beginning to end;
    2. G_t, the discounted rewards from step t on (what came before an action is not its doing);
    3. one gradient step: −log π(a_t|s_t)·(G_t − V(s_t)), summed over each episode's steps, mean
       over the N episodes; then the baseline V is taught G.

    ∇J = E[Σ_t (G_t − b(s_t)) ∇log π(a_t|s_t)] ≈ 1/N Σ_n Σ_t (G_t^n − b(s_t^n)) ∇log π(a_t^n|s_t^n)

Source: Williams 1992; reward-to-go and a learned baseline: Sutton and Barto 2018, section 13.4.
Departures: Adam; the factor γ^t before each step's term is left out, as everybody does, so that
late steps count as early ones. An episode that was cut off goes on in its critic's opinion: G adds
γ^k·V(s) of where it was cut. Without a baseline (`baseline: none`) there is no such opinion, and G
ends with the last reward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.agents.loop import Loop, Weights
from plaudit.agents.training import Training
from plaudit.envs.rewarded import StepReward
from plaudit.envs.rollout import Experience
from plaudit.envs.worlds import Array, Transition, Worlds
from plaudit.nets.control_nets import Net, network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import ActorPolicy, actor
from plaudit.ops.masks import aggregate
from plaudit.ops.policy import score_function_loss
from plaudit.ops.returns import discounted_return
from plaudit.ops.value import explained_variance
from plaudit.records.events import Event
from plaudit.records.state import Saved


class REINFORCEConfig(Loop):
    """Monte-Carlo policy gradient with reward-to-go (Williams 1992)."""

    num_envs: int = Field(1, ge=1, description="Copies of the environment that act side by side.")
    num_episodes: int = Field(
        4, ge=1, description="Episodes of each copy behind one gradient step; N in all copies."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount of the reward a step later.")
    baseline: Literal["value", "none"] = Field(
        "value",
        description="What is taken from a return before it weighs its action: a learned value of "
        "the state (Sutton and Barto 2018, section 13.4), or nothing (Williams 1992).",
    )
    lr: float = Field(3e-3, gt=0, description="Step size of the policy's Adam.")
    value_lr: float = Field(1e-2, gt=0, description="Step size of the baseline's Adam.")
    value_steps: int = Field(
        10, ge=1, description="Gradient steps of the baseline on the episodes of one update."
    )
    hidden: tuple[int, ...] = Field((64, 64), description="Sizes of the hidden layers.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between the layers.")


def reinforce(
    config: REINFORCEConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by REINFORCE, from the beginning or from what was saved."""
    training = Training("reinforce", config, worlds, reward, gamma=config.gamma)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(training.obs_spec, training.action_spec, rng=training.init_rng, **shape)
    critic = network(training.obs_spec, 1, rng=training.init_rng, gain_out=1.0, **shape)
    actor_adam = FlatAdam(policy.parameters(), lr=config.lr)
    critic_adam = FlatAdam(critic.parameters(), lr=config.value_lr)
    training.begin(
        policy, saved, critic=Weights(critic), actor_adam=actor_adam, critic_adam=critic_adam
    )
    monitor = training.monitor

    def act(obs: Array) -> Array:
        return policy.act(obs, training.rng)

    while not monitor.finished:
        seen, num_steps = whole_episodes(
            training.worlds, act, config.num_episodes, to_env=policy.to_env
        )
        monitor.count(num_steps, seen.episodes)
        judge = critic if config.baseline == "value" else None
        loss, ret, numbers = reinforce_loss(policy, judge, seen, gamma=config.gamma)
        actor_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        actor_adam.step()
        monitor.add({**numbers, "lr": config.lr})
        if judge is not None:
            monitor.add(fit_baseline(judge, critic_adam, seen, ret, num_steps=config.value_steps))
        yield from monitor.events(training.parts)
    yield training.end()


def reinforce_loss(
    policy: ActorPolicy, judge: Net | None, seen: Experience, *, gamma: float
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """The loss of N whole episodes, their rewards-to-go [B, T], and numbers to log.

    Σ −log π(a|s)·(G − V(s)) / N, with V the judge's value, or 0 where there is none.
    """
    value, next_value = np.zeros_like(seen.reward), np.zeros_like(seen.reward)
    if judge is not None:
        value, next_value = seen.values_of(judge.infer(seen.all_obs())[:, 0])
    mask = torch.from_numpy(seen.mask)
    ret = discounted_return(
        torch.from_numpy(seen.reward),
        torch.from_numpy(next_value),
        torch.from_numpy(seen.terminated),
        torch.from_numpy(seen.boundary),
        gamma=gamma,
        mask=mask,
    )
    params = policy(torch.from_numpy(seen.obs[seen.mask]))
    logp = policy.head.logp(params, torch.from_numpy(seen.action[seen.mask]))
    adv = (ret - torch.from_numpy(value))[mask]
    num_episodes = torch.tensor(len(seen.final_at))
    loss = aggregate(
        score_function_loss(logp, adv), torch.ones_like(adv, dtype=torch.bool), num_episodes
    )
    entropy = policy.head.entropy(params.detach()).mean().item()
    return loss, ret, {"loss/policy": loss.item(), "policy/entropy": entropy}


def fit_baseline(
    critic: Net, adam: FlatAdam, seen: Experience, ret: Tensor, *, num_steps: int
) -> dict[str, float]:
    """Fits the critic to the returns by `num_steps` steps on ½(V − G)²; numbers from before them."""
    obs, target = torch.from_numpy(seen.obs[seen.mask]), ret[torch.from_numpy(seen.mask)]
    numbers: dict[str, float] = {}
    for step in range(num_steps):
        value = critic(obs).squeeze(-1)
        loss = 0.5 * ((value - target) ** 2).mean()
        if step == 0:
            numbers["loss/value"] = loss.item()
            numbers["val/explained_variance"] = explained_variance(value.detach(), target)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return numbers


def whole_episodes(
    worlds: Worlds,
    act: Callable[[Array], Array],
    num_episodes: int,
    *,
    to_env: Callable[[Array], Array],
) -> tuple[Experience, int]:
    """`num_episodes` episodes of every copy from their beginning, and the steps that they took.

    Copies are done at different times; until all are, the others' further steps are taken (and
    counted) but off the mask. Taking the first episodes to end instead would favour short ones.
    """
    obs = worlds.reset()
    left = np.full(worlds.num_envs, num_episodes)
    rows: list[tuple[Array, Array, Transition, Array]] = []
    num_steps = 0
    while left.any():
        action = act(obs)
        moved = worlds.step(to_env(action))
        rows.append((obs, action, moved, moved.mask & (left > 0)))
        moved.episodes = [episode for episode in moved.episodes if left[episode.env] > 0]
        left -= moved.boundary & (left > 0)
        num_steps += int(moved.mask.sum())
        obs = moved.obs
    return _experience(rows), num_steps


def _experience(rows: list[tuple[Array, Array, Transition, Array]]) -> Experience:
    """Steps in order of time as arrays [B, T]; what is off the mask ends nothing."""
    mask = np.stack([row[3] for row in rows], 1)
    boundary = np.stack([row[2].boundary for row in rows], 1) & mask
    final_at = np.argwhere(boundary)
    last = rows[-1][2]
    return Experience(
        obs=np.stack([row[0] for row in rows], 1),
        action=np.stack([row[1] for row in rows], 1),
        reward=np.stack([row[2].reward for row in rows], 1).astype(np.float32),
        terminated=np.stack([row[2].terminated for row in rows], 1) & mask,
        boundary=boundary,
        mask=mask,
        last_obs=last.obs,
        final_at=final_at,
        final_obs=np.stack([rows[time][2].next_obs[copy] for copy, time in final_at]),
        episodes=[episode for row in rows for episode in row[2].episodes],
    )
