"""Text as steps: a conversation is an episode, a chosen token is an action.

The state before a chosen token is all that stands before it, observations included; the episode
ends at the last chosen token, whether it came to its end or was cut. From here on `ops` computes
for tokens what it computes for a cart.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from plaudit.ops import gae, last_step, next_step_value, truncated_importance
from plaudit.records.types import Steps, Trajectories


def corrected(
    batch: Trajectories, logp: Tensor, *, cap: float
) -> tuple[Trajectories, Tensor, dict[str, float]]:
    """The batch as of the trainer's policy, what each token counts for, and how far the two are
    apart, where a sampler of lower precision drew it.

    `logp` [B, T] are the trainer's log-probabilities, which the batch gets in place of those it was
    drawn with; the weights are w = min(cap, π/π_drawn), 0 off the chosen tokens.
    """
    weight = truncated_importance(logp, batch.logp, cap=cap) * batch.chosen
    ratio = (logp - batch.logp)[batch.chosen].double().exp()
    apart = {
        "sampler/ratio": float(ratio.mean()),
        "sampler/ratio_std": float(ratio.std(correction=0)),
    }
    return replace(batch, logp=logp.to(batch.logp) * batch.chosen), weight, apart


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
