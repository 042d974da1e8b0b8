"""Advantages: how much better an action was than expected.

`gae` looks along time with a critic; the group advantages compare answers to one prompt without.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.masks import near_constant, wide
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
    reward: Float[Tensor, "*batch G"],
    heard: Bool[Tensor, "*batch G"] | None = None,
    *,
    ddof: int = 1,
    eps: float = 1e-6,
) -> Float[Tensor, "*batch G"]:
    """(r − mean) / (std + eps) inside each group of G answers to one prompt.

    std divides by n − ddof: 1 as the method's implementations take it. `heard` is false for answers
    that nobody judged: they take no part, and have advantage 0. A group that is constant up to
    rounding, or in which fewer than two are heard, gives exactly 0.
    Raises ValueError for groups of fewer than two answers, which say nothing of one another.
    Source: Shao et al. 2024 (2402.03300), section 4.1, which leaves ddof and eps open.
    Check: adding a constant to a group changes nothing.
    """
    middle, heard = _centred(reward, heard)
    freedom = (heard.sum(-1, keepdim=True) - ddof).clamp(min=1)
    std = ((middle**2).sum(-1, keepdim=True) / freedom).sqrt()
    # where: a group that says nothing has std 0, and eps may be 0 too.
    return torch.where(middle == 0.0, 0.0, middle / (std + eps)).to(reward.dtype)


def centred_advantage(
    reward: Float[Tensor, "*batch G"], heard: Bool[Tensor, "*batch G"] | None = None
) -> Float[Tensor, "*batch G"]:
    """r − mean of the group, the answer's own reward included; `heard` as in `group_advantage`.

    Raises ValueError for groups of fewer than two answers.
    Source: Liu et al. 2025 (2503.20783), Dr.GRPO: dividing by the std would favour prompts that
    are nearly always, or nearly never, answered well.
    Check: each group sums to 0.
    """
    return _centred(reward, heard)[0].to(reward.dtype)


def leave_one_out_advantage(
    reward: Float[Tensor, "*batch G"], heard: Bool[Tensor, "*batch G"] | None = None
) -> Float[Tensor, "*batch G"]:
    """r minus the mean of the other answers' rewards: n/(n − 1) · (r − mean) of the n heard.

    Raises ValueError for groups of fewer than two answers.
    Source: Ahmadian et al. 2024 (2402.14740), section 2; Kool et al. 2019.
    Check: each group sums to 0, and adding a constant to a group changes nothing.
    """
    middle, heard = _centred(reward, heard)
    size = heard.sum(-1, keepdim=True).to(middle.dtype)  # of integers the quotient is float32
    return (middle * (size / (size - 1).clamp(min=1))).to(reward.dtype)


def has_signal(
    reward: Float[Tensor, "*batch G"], heard: Bool[Tensor, "*batch G"] | None = None
) -> Bool[Tensor, "*batch"]:
    """True for groups of which two answers at least are heard whose rewards differ by more than
    rounding, at the resolution of float32, in which models score: the others teach nothing."""
    _check_group(reward)
    if heard is None:
        heard = torch.ones_like(reward, dtype=torch.bool)
    check_same_shape(reward=reward, heard=heard)
    several = heard.sum(-1) > 1
    return several & ~near_constant(reward.float(), heard, dim=-1).squeeze(-1)


def _centred(reward: Tensor, heard: Tensor | None) -> tuple[Tensor, Tensor]:
    """r − mean, exactly 0 in groups without a signal and where nobody judged; and who is heard.

    Measured from one member first, so that a large common offset costs no digits.
    """
    if heard is None:
        heard = torch.ones_like(reward, dtype=torch.bool)
    teaches = heard & has_signal(reward, heard).unsqueeze(-1)
    exact = torch.where(heard, reward, 0.0).to(wide(reward.dtype))
    shifted = exact - exact.gather(-1, heard.int().argmax(-1, keepdim=True))
    mean = torch.where(heard, shifted, 0.0).sum(-1, keepdim=True)
    mean = mean / heard.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(teaches, shifted - mean, 0.0), heard


def _check_group(reward: Tensor) -> None:
    if reward.shape[-1] < 2:
        raise ValueError(
            f"a group of {reward.shape[-1]} answers has no advantage: draw at least 2 a prompt."
        )
