"""Losses of learning from comparisons, per pair and to be minimised.

Scores are in nats: a difference d means that the better one wins with probability σ(d).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.ops.shapes import check_same_shape


def bradley_terry(
    chosen: Float[Tensor, "*shape"],
    rejected: Float[Tensor, "*shape"],
    margin: Float[Tensor, "*shape"] | float = 0.0,
) -> Float[Tensor, "*shape"]:
    """−log σ(r_w − r_l − margin): the chosen answer should lead by more than the margin.

    Finite for any finite scores. `margin` is one number, or one for each pair.
    Source: Bradley and Terry 1952; margin: Touvron et al. 2023 (2307.09288), section 3.2.2.
    Check: exp(−loss) of a pair and of its swap sum to 1 when margin = 0.
    """
    each = margin if isinstance(margin, Tensor) else None
    check_same_shape(chosen=chosen, rejected=rejected, margin=each)
    return -logsigmoid(chosen - rejected - margin)


def bradley_terry_soft(
    score_a: Float[Tensor, "*shape"],
    score_b: Float[Tensor, "*shape"],
    prob_a: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Cross-entropy −q log σ(a − b) − (1 − q) log σ(b − a), with q = `prob_a`.

    q is the share of votes for a: ½ for a tie, 1 or 0 for a clear choice.
    Raises ValueError for shares outside [0, 1].
    Source: Christiano et al. 2017 (1706.03741), section 2.2.3.
    Check: least where σ(a − b) = q; with q = 1 it is `bradley_terry`.
    """
    check_same_shape(score_a=score_a, score_b=score_b, prob_a=prob_a)
    if not bool(((prob_a >= 0) & (prob_a <= 1)).all()):
        raise ValueError("prob_a is a share of votes and must lie in [0, 1].")
    lead = score_a - score_b
    return -(prob_a * logsigmoid(lead) + (1.0 - prob_a) * logsigmoid(-lead))


def reward_centring(
    chosen: Float[Tensor, "*shape"], rejected: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """(r_w + r_l)²: comparisons leave the level of scores free; a little of this pins it at 0.

    Source: Eisenstein et al. 2023 (2312.09244), with a coefficient near 0.01.
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    return (chosen + rejected) ** 2
