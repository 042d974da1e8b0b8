"""Returns: sums of discounted rewards, and the backward recursion that all credit uses.

Time is the last axis. `terminated` marks steps after which there is no future; `boundary` marks
steps after which credit must not flow back (terminated or truncated). A row's end cuts it as a
truncation does. Steps off the mask (observation tokens, padding) count as if they were deleted.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape, check_within

LONG = 16
"""Steps from which on passes over whole rows are faster than a loop over time."""


def discounted_return(
    reward: Float[Tensor, "*batch T"],
    next_value: Float[Tensor, "*batch T"],
    terminated: Bool[Tensor, "*batch T"],
    boundary: Bool[Tensor, "*batch T"],
    *,
    gamma: float,
    mask: Bool[Tensor, "*batch T"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Discounted sum of the rewards to the episode's end, bootstrapped where it was cut.

    G_t = r_t + γ·G_{t+1} inside an episode. At a boundary, and at a row's last step,
    G_t = r_t + γ·next_value_t·(1 − terminated_t): give next_value = 0 for no bootstrap.
    Off the mask the result is 0 and the recursion passes undiscounted.
    Raises ValueError if shapes differ, or a terminated step is no boundary.
    Source: Sutton and Barto 2018, sections 3.3 and 6.1.
    Check: constant reward 1 approaches 1/(1 − γ).
    """
    check_same_shape(
        reward=reward, next_value=next_value, terminated=terminated, boundary=boundary, mask=mask
    )
    check_within("gamma", gamma, 0.0, 1.0)
    if mask is None:
        mask = torch.ones_like(boundary)
    check_boundary(terminated, boundary, mask)
    cut = boundary | last_step(mask)
    # where, not a product: a value after the end may be anything, NaN included.
    ahead = torch.where(cut & ~terminated, gamma * next_value, 0.0)
    own = torch.where(mask, reward + ahead, 0.0)
    inside = gamma * (~cut).to(own.dtype)
    ret = backward_sum(own, torch.where(mask, inside, 1.0))
    return torch.where(mask, ret, 0.0)


def next_step_value(
    value: Float[Tensor, "*batch T"], mask: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "*batch T"]:
    """The value at the next step that counts, for rows that are one episode each.

    next_value_t = value_s with s the first step after t on the mask; 0 past the last, and 0 off
    the mask. For tokens: the state after an action is judged where the policy next acts, so
    observation tokens are skipped.
    Check: with a full mask this is `value` shifted by one.
    """
    check_same_shape(value=value, mask=mask)
    here = backward_sum(torch.where(mask, value, 0.0), (~mask).to(value.dtype))
    after = torch.nn.functional.pad(here[..., 1:], (0, 1))
    return torch.where(mask, after, 0.0)


def backward_sum(
    own: Float[Tensor, "*batch T"], carried: Float[Tensor, "*batch T"]
) -> Float[Tensor, "*batch T"]:
    """The recursion y_t = own_t + carried_t · y_{t+1}, from y = 0 past the end."""
    check_same_shape(own=own, carried=carried)
    if own.shape[-1] > LONG:
        return _doubled_sum(own, carried)
    total = torch.zeros_like(own[..., 0]) if own.shape[-1] else own.sum(-1)
    rows: list[Tensor] = []
    for x, share in zip(own.unbind(-1)[::-1], carried.unbind(-1)[::-1], strict=True):
        total = x + share * total
        rows.append(total)
    return torch.stack(rows[::-1], -1) if rows else own


def _doubled_sum(own: Tensor, carried: Tensor) -> Tensor:
    """The same recursion in log2(T) passes over whole rows (Hillis and Steele 1986).

    After each pass y_t covers twice as many steps: y_t ← y_t + c_t · y_{t+s}, c_t ← c_t · c_{t+s}.
    """
    total, share, stride = own, carried, 1
    while stride < own.shape[-1]:
        ahead = torch.nn.functional.pad(total[..., stride:], (0, stride))
        total = torch.addcmul(total, share, ahead)
        share = share * torch.nn.functional.pad(share[..., stride:], (0, stride))
        stride *= 2
    return total


def check_boundary(terminated: Tensor, boundary: Tensor, mask: Tensor) -> None:
    """Refuse a step that ends the episode without stopping credit."""
    if bool((terminated & ~boundary & mask).any()):
        raise ValueError("a terminated step must be a boundary too, or credit crosses episodes.")


def last_step(mask: Bool[Tensor, "*batch T"]) -> Bool[Tensor, "*batch T"]:
    """True at the last step of each row that counts; rows where none does stay false."""
    left = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (left == 1)


def outcome_reward(
    score: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "*batch T"]:
    """Rewards that are the judgement of a whole row: its `score` on its last step that counts.

    Check: a row's rewards sum to its score.
    """
    return torch.where(last_step(mask), score[..., None], 0.0)
