"""Pure functions on tensors: per element in, per element out; time is the last axis.

Reduction is one function, `aggregate`, which the algorithm calls in view. Shapes are written in the
signatures and verified at run time by the test suite.
"""

from __future__ import annotations

from plaudit.ops.advantages import (
    centred_advantage,
    gae,
    group_advantage,
    has_signal,
    leave_one_out_advantage,
)
from plaudit.ops.divergence import entropy, kl_exact, kl_k1, kl_k2, kl_k3
from plaudit.ops.filtering import filtered_logits, keep_mask
from plaudit.ops.groups import Groups
from plaudit.ops.label_losses import LABEL_LOSSES
from plaudit.ops.logprobs import token_logprobs, token_logprobs_of
from plaudit.ops.masks import (
    aggregate,
    masked_mean,
    masked_sample_variance,
    masked_scale,
    masked_sum,
    masked_variance,
    masked_whiten,
    near_constant,
)
from plaudit.ops.pair_losses import PAIR_LOSSES
from plaudit.ops.policy import (
    clipped_surrogate,
    kl_penalised_surrogate,
    score_function_loss,
    truncated_importance,
)
from plaudit.ops.policy_losses import SURROGATES
from plaudit.ops.preference import bradley_terry, bradley_terry_soft, reward_centring
from plaudit.ops.returns import discounted_return, last_step, next_step_value, outcome_reward
from plaudit.ops.rewards import combined
from plaudit.ops.value import clipped_value_loss, explained_variance

__all__ = [
    "LABEL_LOSSES",
    "PAIR_LOSSES",
    "SURROGATES",
    "Groups",
    "aggregate",
    "bradley_terry",
    "bradley_terry_soft",
    "centred_advantage",
    "clipped_surrogate",
    "clipped_value_loss",
    "combined",
    "discounted_return",
    "entropy",
    "explained_variance",
    "filtered_logits",
    "gae",
    "group_advantage",
    "has_signal",
    "keep_mask",
    "kl_exact",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalised_surrogate",
    "last_step",
    "leave_one_out_advantage",
    "masked_mean",
    "masked_sample_variance",
    "masked_scale",
    "masked_sum",
    "masked_variance",
    "masked_whiten",
    "near_constant",
    "next_step_value",
    "outcome_reward",
    "reward_centring",
    "score_function_loss",
    "token_logprobs",
    "token_logprobs_of",
    "truncated_importance",
]
