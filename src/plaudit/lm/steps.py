"""Text as steps: an answer is an episode, a token is an action.

The state before token t is the prompt and the tokens so far; the episode ends at the last real
token, drawn stop token or not. From here on `ops` computes for tokens what it computes for a cart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.ops import gae, next_step_value
from plaudit.records.types import Steps, Trajectories


def last_token(mask: Tensor) -> Tensor:
    """True at the last masked step of each row: [B, T] bool; rows without any step stay false."""
    after = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (after == 1)


def token_steps(
    batch: Trajectories, *, value: Tensor, score: Tensor, logp_ref: Tensor, kl_coef: float
) -> Steps:
    """The steps of a batch of answers, with the KL penalty inside the reward.

    r_t = −kl_coef·(logp_t − logp_ref_t), plus the answer's `score` [B] on its last real token.
    An answer cut by the length limit is judged as it stands: its last token is terminal too, and
    nothing is bootstrapped. `value` and `logp_ref` are [B, T].
    Source: Ziegler et al. 2019 (1909.08593), section 2.1; Ouyang et al. 2022 (2203.02155).
    Check: with no discount a row's rewards sum to score − kl_coef·Σ(logp − logp_ref).
    """
    mask = batch.mask
    last = last_token(mask)
    reward = -kl_coef * (batch.logp - logp_ref) * mask
    reward = reward + torch.where(last, score.to(reward.dtype)[:, None], 0.0)
    return Steps(
        obs=batch.answer,
        action=batch.answer,
        logp=batch.logp,
        value=value * mask,
        next_value=next_step_value(value, mask),
        reward=reward,
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
