"""Advantages: how much better an action was than expected.

`gae` looks along time with a critic; the group advantages compare answers to one prompt without.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.masks import masked_sample_variance, near_constant, wide
from plaudit.ops.returns import backward_sum, check_boundary
from plaudit.ops.shapes import check_same_shape, check_within


def gae(
    reward: Float[Tensor, "*batch T"],
    value: Float[Tensor, "*batch T"],
    next_value: Float[Tensor, "*batch T"],
    terminated: Bool[Tensor, "*batch T"],
    boundary: Bool[Tensor, "*batch T"],
    *,
    gamma: float,
    lam: float,
    mask: Bool[Tensor, "*batch T"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Advantage per step as a decaying sum of TD errors.

    δ_t = r_t + γ·next_value_t·(1 − terminated_t) − value_t
    A_t = δ_t + γλ·(1 − boundary_t)·A_{t+1}

    `terminated` removes the bootstrap; `boundary` (terminated or truncated) stops credit crossing
    episodes. Steps off the mask are skipped: they yield 0 and A passes them without decay;
    `next_step_value` gives their neighbours' next_value.
    Raises ValueError if shapes differ, or a terminated step is no boundary.
    Source: Schulman et al. 2016 (1506.02438), section 3.
    Check: with lam=1 and no truncation, adv + value is the return.
    """
    check_same_shape(
        reward=reward,
        value=value,
        next_value=next_value,
        terminated=terminated,
        boundary=boundary,
        mask=mask,
    )
    check_within("gamma", gamma, 0.0, 1.0)
    check_within("lam", lam, 0.0, 1.0)
    if mask is None:
        mask = torch.ones_like(boundary)
    check_boundary(terminated, boundary, mask)
    # where, not a product: a value after the end may be anything, NaN included.
    ahead = torch.where(terminated, 0.0, gamma * next_value)
    delta = torch.where(mask, reward + ahead - value, 0.0)
    inside = gamma * lam * (~boundary).to(delta.dtype)
    adv = backward_sum(delta, torch.where(mask, inside, 1.0))
    return torch.where(mask, adv, 0.0)


def group_advantage(
    reward: Float[Tensor, "*batch G"], *, eps: float = 1e-6
) -> Float[Tensor, "*batch G"]:
    """(r − mean) / (std + eps) inside each group of G answers to one prompt.

    std is the sample standard deviation (n − 1), as the method's implementations take it. A group
    that is constant up to rounding gives exactly 0.
    Raises ValueError for groups of fewer than two answers, which say nothing of one another.
    Source: Shao et al. 2024 (2402.03300), section 4.1.
    Check: adding a constant to a group changes nothing.
    """
    _check_group(reward)
    everything = torch.ones_like(reward, dtype=torch.bool)
    std = masked_sample_variance(reward, everything, dim=-1).sqrt().unsqueeze(-1)
    constant = near_constant(reward, everything, dim=-1)
    return torch.where(constant, 0.0, _centred(reward) / (std + eps)).to(reward.dtype)


def leave_one_out_advantage(reward: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch G"]:
    """r minus the mean of the other answers' rewards: G/(G − 1) · (r − mean).

    Raises ValueError for groups of fewer than two answers.
    Source: Ahmadian et al. 2024 (2402.14740), section 2; Kool et al. 2019.
    Check: each group sums to 0, and adding a constant to a group changes nothing.
    """
    _check_group(reward)
    size = reward.shape[-1]
    return (_centred(reward) * (size / (size - 1))).to(reward.dtype)


def _centred(reward: Tensor) -> Tensor:
    """r − mean, measured from one member first so that a constant group is exactly 0."""
    exact = reward.to(wide(reward.dtype))
    shifted = exact - exact[..., :1]
    return shifted - shifted.mean(-1, keepdim=True)


def _check_group(reward: Tensor) -> None:
    if reward.shape[-1] < 2:
        raise ValueError(
            f"a group of {reward.shape[-1]} answers has no advantage: draw at least 2 a prompt."
        )
