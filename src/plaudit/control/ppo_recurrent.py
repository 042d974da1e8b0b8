"""Recurrent PPO: `ppo` for worlds that do not show all of their state at once.

Actor and critic have a GRU each, over what was seen since the episode began. The unit of an update
is not the step but the fragment: a copy's rollout of `num_steps` is cut where episodes begin. The
states inside are computed anew, from 0, or in a copy's first fragment from the state that was
carried into it (stored when acting, hence a little stale after an update); gradients go back to the
fragment's beginning, not further.

    L as in `ppo`, with π(a_t|h_t), V(h_t) and h_t = GRU(s_t, h_{t−1}), h = 0 before an episode

Source: Schulman et al. 2017 (1707.06347); states stored and carried on: Hausknecht and Stone 2015;
Kapturowski et al. 2019, "stored state". Departures as in `ppo`; minibatches are of
fragments, and each is a mean over its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from plaudit.agents.loop import Loop, Weights
from plaudit.agents.on_policy import ADV_EPS, Schedule, descend, scheduled
from plaudit.agents.training import Training
from plaudit.envs.rewarded import StepReward
from plaudit.envs.rollout import Experience, collect
from plaudit.envs.worlds import Array, Transition, Worlds
from plaudit.nets.optim import FlatAdam
from plaudit.nets.recurrent_policies import (
    Memory,
    RecurrentNet,
    RecurrentPolicy,
    recurrent_actor,
    recurrent_net,
)
from plaudit.ops.advantages import gae
from plaudit.ops.divergence import kl_k3
from plaudit.ops.masks import aggregate
from plaudit.ops.policy import clipped_surrogate
from plaudit.records.events import Event
from plaudit.records.state import Saved


class RecurrentPPOConfig(Loop):
    """Proximal policy optimisation of policies with a memory (Schulman et al. 2017)."""

    num_envs: int = Field(8, ge=1, description="Copies of the environment that act side by side.")
    num_steps: int = Field(
        128, ge=1, description="Steps of each copy between two updates (2017, table 5: 128)."
    )
    num_epochs: int = Field(10, ge=1, description="Times through each rollout (2017, table 3: 10).")
    num_minibatches: int = Field(
        4, ge=1, description="Parts that fragments are dealt to, one gradient step each."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount (2017, table 3).")
    lam: float = Field(0.95, ge=0, le=1, description="Decay of GAE (2017, table 3).")
    clip: float = Field(
        0.2, gt=0, lt=1, description="Half width of the range of the ratio (2017, section 6.1)."
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
    memory: int = Field(64, ge=1, description="Numbers that each GRU remembers.")
    hidden: tuple[int, ...] = Field(
        (64,), description="Sizes of the layers between a GRU and what it is for."
    )
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between those layers.")


def ppo_recurrent(
    config: RecurrentPPOConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by recurrent PPO, from the beginning or from what was saved."""
    training = Training("ppo_recurrent", config, worlds, reward, gamma=config.gamma)
    shape: dict[str, Any] = {
        "num_hidden": config.memory,
        "hidden": config.hidden,
        "activation": config.activation,
    }
    policy = recurrent_actor(
        training.obs_spec, training.action_spec, rng=training.init_rng, **shape
    )
    critic = recurrent_net(training.obs_spec, 1, rng=training.init_rng, gain_out=1.0, **shape)
    optimiser = FlatAdam([*policy.parameters(), *critic.parameters()], lr=config.lr, eps=1e-5)
    # What each has in mind when the next rollout begins.
    of_actor, of_critic = policy.net.memory(config.num_envs), critic.memory(config.num_envs)

    obs = training.begin(
        cast(Any, policy),
        saved,
        critic=Weights(critic),
        optimiser=optimiser,
        of_actor=of_actor,
        of_critic=of_critic,
    )
    monitor = training.monitor
    if training.lost_episodes:  # others have begun
        of_actor.starts = np.ones_like(of_actor.starts)

    def act(obs: Array) -> Array:
        return policy.draw(obs, of_actor, training.rng)

    tracked = EpisodeTracker(training.worlds, of_actor)
    while not monitor.finished:
        begun = copy(of_actor)
        seen = collect(tracked, act, obs, config.num_steps, to_env=policy.to_env)
        obs = seen.last_obs
        monitor.count(seen.num_steps, seen.episodes)
        batch = sequences_of(config, policy, critic, seen, begun, of_critic)

        optimiser.lr = scheduled(config.lr, config.lr_schedule, monitor.remaining)
        for part in batch.minibatches(config.num_epochs, config.num_minibatches, training.rng):
            loss, numbers = objective(config, policy, critic, part)
            monitor.add(
                {**numbers, "grad_norm": descend(optimiser, loss.backward, config.max_grad_norm)}
            )
        monitor.add({"lr": optimiser.lr})
        yield from monitor.events(training.parts)
    yield training.end()


class EpisodeTracker:
    """Worlds that tell a memory where episodes begin."""

    def __init__(self, worlds: Worlds, memory: Memory) -> None:
        self._worlds, self._memory = worlds, memory
        self.num_envs, self.gives_state = worlds.num_envs, worlds.gives_state
        self.obs_spec, self.action_spec = worlds.obs_spec, worlds.action_spec
        self.statistics = worlds.statistics
        self.reset, self.close = worlds.reset, worlds.close
        self.state, self.restore = worlds.state, worlds.restore

    def step(self, actions: Array) -> Transition:
        """Acts; where an episode ended, or the step was only a reset, the next one begins."""
        moved = self._worlds.step(actions)
        self._memory.starts = moved.boundary | ~moved.mask
        return moved


@dataclass(frozen=True)
class Fragments:
    """How rollouts [T, B] are cut where episodes begin: M fragments of at most L steps.

    `time` and `copy` [L, M] say where each step comes from; past a fragment's end they repeat its
    last step, and `inside` is false. `carried` [M]: it goes on with an episode from before.
    """

    time: Tensor
    copy: Tensor
    inside: Tensor
    carried: Tensor

    @classmethod
    def of(cls, starts: NDArray[np.bool_]) -> Fragments:
        """Those of `starts` [T, B], true where an observation is the first of its episode."""
        cuts = starts.T.copy()
        cuts[:, 0] = True
        of_copy, begin = np.nonzero(cuts)
        end = np.append(begin[1:], 0)
        end[end == 0] = len(starts)  # the next fragment is another copy's
        steps = np.arange((end - begin).max())[:, None]
        time = np.minimum(begin + steps, end - 1)
        carried = ~starts[begin, of_copy]
        copies = np.broadcast_to(of_copy, time.shape).copy()
        columns = (time, copies, begin + steps < end, carried)
        return cls(*(torch.from_numpy(column) for column in columns))

    def cut(self, x: Tensor) -> Tensor:
        """[L, M, ...] from [T, B, ...]."""
        return x[self.time, self.copy]

    def joined(self, y: Tensor, num_steps: int, num_envs: int) -> Tensor:
        """[T, B, ...] from [L, M, ...]: what `cut` undoes."""
        whole = y.new_empty(num_steps, num_envs, *y.shape[2:])
        whole[self.time[self.inside], self.copy[self.inside]] = y[self.inside]
        return whole

    def state(self, hidden: Tensor) -> Tensor:
        """The states [M, H] that fragments begin with, from those [B, H] of the copies."""
        return torch.where(self.carried[:, None], hidden[self.copy[0]], 0.0)


@dataclass(frozen=True)
class Sequences:
    """M fragments side by side: obs [L, M, D], action [L, M, ...], mask, logp, adv and ret [L, M],
    and the states [M, H] that actor and critic began them with."""

    obs: Tensor
    action: Tensor
    mask: Tensor
    logp: Tensor
    adv: Tensor
    ret: Tensor
    of_actor: Tensor
    of_critic: Tensor

    def minibatches(
        self, num_epochs: int, number: int, rng: np.random.Generator
    ) -> Iterator[Sequences]:
        """All fragments once an epoch, each time dealt anew to `number` parts or fewer."""
        for _ in range(num_epochs):
            order = rng.permutation(len(self.of_actor))
            for rows in np.array_split(order, number):
                index = torch.from_numpy(rows)
                part = Sequences(
                    obs=self.obs[:, index],
                    action=self.action[:, index],
                    mask=self.mask[:, index],
                    logp=self.logp[:, index],
                    adv=self.adv[:, index],
                    ret=self.ret[:, index],
                    of_actor=self.of_actor[index],
                    of_critic=self.of_critic[index],
                )
                if bool(part.mask.any()):
                    yield part


def sequences_of(
    config: RecurrentPPOConfig,
    policy: RecurrentPolicy,
    critic: RecurrentNet,
    seen: Experience,
    of_actor: Memory,
    of_critic: Memory,
) -> Sequences:
    """The experience with the probabilities and credit of its steps.

    The memories are those that the rollout began with; the critic's goes on to its end.
    """
    starts = np.concatenate((of_actor.starts[None], (seen.boundary | ~seen.mask).T[:-1]))
    fragments = Fragments.of(starts)
    hidden = fragments.state(torch.from_numpy(of_actor.hidden))
    critic_hidden = fragments.state(torch.from_numpy(of_critic.hidden))
    obs, action = (fragments.cut(by_time(x)) for x in (seen.obs, seen.action))
    with torch.no_grad():
        params = policy.net(obs, hidden)[0].flatten(0, 1)
        logp = policy.head.logp(params, action.flatten(0, 1)).view(fragments.inside.shape)
        out, states = critic(obs, critic_hidden)
        value, next_value = values(critic, seen, fragments, out, states, of_critic)
    adv = gae(
        torch.from_numpy(seen.reward),
        value,
        next_value,
        torch.from_numpy(seen.terminated),
        torch.from_numpy(seen.boundary),
        gamma=config.gamma,
        lam=config.lam,
        mask=torch.from_numpy(seen.mask),
    )
    return Sequences(
        obs=obs,
        action=action,
        mask=fragments.inside & fragments.cut(by_time(seen.mask)),
        logp=logp,
        adv=fragments.cut(adv.T),
        ret=fragments.cut((adv + value).T),
        of_actor=hidden,
        of_critic=critic_hidden,
    )


def values(
    critic: RecurrentNet,
    seen: Experience,
    fragments: Fragments,
    out: Tensor,
    states: Tensor,
    memory: Memory,
) -> tuple[Tensor, Tensor]:
    """(value, next_value) [B, T] from the critic's outputs and states; `memory` becomes the last.

    What a step led to is judged from the state of its own episode, also where the episode ended
    there and the next observation in line is another's.
    """
    num_envs, num_steps = seen.reward.shape
    whole = fragments.joined(states, num_steps, num_envs)
    memory.hidden = whole[-1].numpy().copy()
    of_copy, time = torch.from_numpy(seen.final_at).T
    led_to = torch.from_numpy(np.concatenate((seen.last_obs, seen.final_obs)))
    beyond, _ = critic(led_to[None], torch.cat((whole[-1], whole[time, of_copy])))
    within = fragments.joined(out, num_steps, num_envs)[..., 0]
    judged = torch.cat((within.T.reshape(-1), beyond[0, :, 0]))
    value, next_value = seen.values_of(judged.numpy())
    return torch.from_numpy(value), torch.from_numpy(next_value)


def objective(
    config: RecurrentPPOConfig, policy: RecurrentPolicy, critic: RecurrentNet, part: Sequences
) -> tuple[Tensor, dict[str, float]]:
    """The loss of some copies' rollouts, and numbers to log; as `ppo`'s, over the steps that count."""
    count = part.mask.sum()
    params = policy.net(part.obs, part.of_actor)[0].flatten(0, 1)
    logp = policy.head.logp(params, part.action.flatten(0, 1)).view(part.mask.shape)
    entropy = policy.head.entropy(params).view(part.mask.shape)
    value = critic(part.obs, part.of_critic)[0].squeeze(-1)
    adv = normalised(part.adv, part.mask)
    clipped = clipped_surrogate(logp, part.logp, adv, clip_low=config.clip, clip_high=config.clip)
    gain = aggregate(clipped, part.mask, count)
    error = aggregate(0.5 * (value - part.ret) ** 2, part.mask, count)
    spread = aggregate(entropy, part.mask, count)
    with torch.no_grad():
        ratio = (logp - part.logp).exp()
        outside = ((ratio - 1).abs() > config.clip).float()
        numbers = {
            "loss/policy": gain.item(),
            "loss/value": error.item(),
            "policy/entropy": spread.item(),
            "policy/approxkl": aggregate(kl_k3(part.logp, logp), part.mask, count).item(),
            "policy/clipfrac": aggregate(outside, part.mask, count).item(),
        }
    return gain + config.value_coef * error - config.entropy_coef * spread, numbers


def normalised(adv: Tensor, mask: Tensor) -> Tensor:
    """(A − mean) / (std + 1e-8) over the steps that count; A itself where there is only one."""
    counted = adv[mask]
    if len(counted) < 2:
        return adv
    std, mean = torch.std_mean(counted)
    return (adv - mean) / (std + ADV_EPS)


def by_time(x: Array) -> Tensor:
    """[T, B, ...] from [B, T, ...]."""
    return torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))
