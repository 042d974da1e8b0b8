"""From fresh experience to minibatches: probabilities and values of all steps at once, then credit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from plaudit.envs.rollout import Experience
from plaudit.nets.loss_kernels import standardised
from plaudit.nets.optim import FlatAdam, FlatRMSprop, clip_grad_norm_
from plaudit.ops.advantages import gae
from plaudit.records.types import Steps

if TYPE_CHECKING:
    from plaudit.nets.control_nets import Net
    from plaudit.nets.policies import ActorPolicy

Schedule = Literal["constant", "linear"]

ADV_EPS = 1e-8
"""Added to the deviation that advantages are divided by, as the method's implementations do."""


@dataclass(frozen=True)
class Batch:
    """N steps of experience, in no order: `obs` [N, ...], `action` [N, ...], all else [N]."""

    obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    adv: Tensor
    ret: Tensor

    def __len__(self) -> int:
        return len(self.adv)

    def normalised_adv(self) -> Tensor:
        """(A − mean) / (std + 1e-8) over these steps; A itself where there is only one."""
        return torch.from_numpy(standardised(self.adv.numpy(), ADV_EPS))

    def minibatches(self, num_epochs: int, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All steps `num_epochs` times, each time in another order, `size` at once (the last fewer).

        Where one minibatch holds all steps their order changes nothing, and they are not copied.
        """
        for _ in range(num_epochs):
            if size >= len(self):
                yield self
                continue
            order = torch.from_numpy(rng.permutation(len(self)))
            for rows in torch.split(order, size):
                yield Batch(*(getattr(self, field.name)[rows] for field in fields(self)))


def to_steps(seen: Experience, policy: ActorPolicy, critic: Net) -> Steps:
    """What every kind of credit takes [B, T], with the log-probabilities and values of `seen`.

    The policy must still be the one that acted.
    """
    num_envs, num_steps = seen.reward.shape
    value, next_value = seen.values_of(critic.infer(seen.all_obs())[:, 0])
    action = torch.from_numpy(seen.action)
    with torch.no_grad():
        rows = seen.obs.reshape(num_envs * num_steps, *seen.obs.shape[2:])
        params = torch.from_numpy(policy.net.infer(rows))
        logp = policy.head.logp(params, action.flatten(0, 1)).view(num_envs, num_steps)
    return Steps(
        obs=torch.from_numpy(seen.obs),
        action=action,
        logp=logp,
        value=torch.from_numpy(value),
        next_value=torch.from_numpy(next_value),
        reward=torch.from_numpy(seen.reward),
        terminated=torch.from_numpy(seen.terminated),
        boundary=torch.from_numpy(seen.boundary),
        mask=torch.from_numpy(seen.mask),
    )


def advantage_batch(
    seen: Experience, policy: ActorPolicy, critic: Net, *, gamma: float, lam: float
) -> Batch:
    """The steps that count, with GAE and the return (advantage + value) that it implies."""
    steps = to_steps(seen, policy, critic)
    adv = gae(
        steps.reward,
        steps.value,
        steps.next_value,
        steps.terminated,
        steps.boundary,
        gamma=gamma,
        lam=lam,
        mask=None if seen.mask.all() else steps.mask,
    )
    return batch_of(steps, adv, adv + steps.value)


def batch_of(steps: Steps, adv: Tensor, ret: Tensor) -> Batch:
    """The steps on the mask [N] of experience [B, T]."""
    columns = (steps.obs, steps.action, steps.logp, steps.value, adv, ret)
    if bool(steps.mask.all()):
        return Batch(*(column.flatten(0, 1) for column in columns))
    return Batch(*(column[steps.mask] for column in columns))


def descend(
    optimiser: FlatAdam | FlatRMSprop, back: Callable[[], object], max_norm: float
) -> float:
    """One gradient step: `back()` leaves the gradients (as `loss.backward` does), which are cut to
    the length `max_norm`; the length before that."""
    optimiser.zero_grad()
    back()
    norm = clip_grad_norm_(optimiser.params, max_norm)
    optimiser.step()
    return norm


def scheduled(value: float, schedule: Schedule, remaining: float) -> float:
    """`value`, or its `remaining` share where it falls linearly to 0."""
    return value * remaining if schedule == "linear" else value
