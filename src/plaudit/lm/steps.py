"""Text as steps: a conversation is an episode, a chosen token is an action.

The state before a chosen token is all that stands before it, observations included; the episode
ends at the last chosen token, whether it came to its end or was cut. From here on `ops` computes
for tokens what it computes for a cart.
"""

from __future__ import annotations

from torch import Tensor

from plaudit.ops import gae, last_step, next_step_value
from plaudit.records.types import Steps, Trajectories


def token_steps(
    batch: Trajectories, *, value: Tensor, reward: Tensor, logp_ref: Tensor, kl_coef: float
) -> Steps:
    """The steps of a batch, with the KL penalty inside the reward.

    r_t = reward_t − kl_coef·(logp_t − logp_ref_t) on chosen tokens; `reward`, `value` and
    `logp_ref` are [B, T]. A row that a limit cut is judged as it stands: its last chosen token is
    terminal too, and nothing is bootstrapped.
    Source: Ziegler et al. 2019 (1909.08593), section 2.1; Ouyang et al. 2022 (2203.02155).
    Check: with no discount a row's rewards sum to Σ reward − kl_coef·Σ(logp − logp_ref).
    """
    mask = batch.chosen
    last = last_step(mask)
    penalty = -kl_coef * (batch.logp - logp_ref) * mask
    return Steps(
        obs=batch.token,
        action=batch.token,
        logp=batch.logp,
        value=value * mask,
        next_value=next_step_value(value, mask),
        reward=penalty + reward.to(penalty.dtype) * mask,
        terminated=last,
        boundary=last,
        mask=mask,
    )


def credit(steps: Steps, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantage and return of every step, [B, T] each, 0 off the mask."""
    adv = gae(
        steps.reward,
        steps.value,
        steps.next_value,
        steps.terminated,
        steps.boundary,
        gamma=gamma,
        lam=lam,
        mask=steps.mask,
    )
    return adv, (adv + steps.value) * steps.mask
