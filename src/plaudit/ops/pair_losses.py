"""Losses of learning from pairs directly, without a reward model: a table, one short function each.

A pair is an answer that was preferred and one that was not, to the same prompt. Of each `Answer`
a loss sees the summed log-probability of its tokens, the reference's, and their number; with

    u = β (log π − log π_ref)      of an answer
    h = u_w − u_l                  of a pair

a function gives one number a pair, to be minimised. Losses without a reference never read `ref`.
Sources stand beside the functions; fixed points and gradients are tested by enumeration.
Left out: AOT, whose pairs are made by sorting over a batch; f-divergences other than the KL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.ops.shapes import check_same_shape

Pairs = Float[Tensor, " n"]


@dataclass(frozen=True)
class Answer:
    """One side of n pairs, [n] each: Σ log π over an answer's tokens, Σ log π_ref, and how many."""

    logp: Pairs
    ref: Pairs
    length: Pairs

    @property
    def log_ratio(self) -> Pairs:
        """log π − log π_ref, summed over tokens."""
        return self.logp - self.ref

    @property
    def mean_ratio(self) -> Pairs:
        """The log-ratio averaged over tokens."""
        return self.log_ratio / self.length.clamp(min=1.0)

    @property
    def mean(self) -> Pairs:
        """log π averaged over tokens; an empty answer has 0."""
        return self.logp / self.length.clamp(min=1.0)


@dataclass(frozen=True)
class PairKeys:
    """Coefficients of the losses; each loss says which of them it reads."""

    beta: float = 0.1
    smoothing: float = 0.0
    gamma: float = 0.0
    alpha: float = 1.0
    tau: float = 0.05
    delta: float = 0.0


PairFunction = Callable[[Answer, Answer, PairKeys, Tensor], Tensor]
"""loss(chosen, rejected, keys, margin [n]) -> [n]."""


def _lead(won: Answer, lost: Answer, keys: PairKeys) -> Tensor:
    """h = β (log-ratio of the chosen answer − that of the rejected one)."""
    check_same_shape(chosen=won.logp, rejected=lost.logp)
    return keys.beta * (won.log_ratio - lost.log_ratio)


def dpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(h − margin). Source: Rafailov et al. 2023 (2305.18290), equation 7; the margin:
    Amini et al. 2024 (2402.10571). Optimum: π_ref exp(r/β) where labels are Bradley–Terry's."""
    return -logsigmoid(_lead(won, lost, keys) - margin)


def cdpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−(1 − ε) log σ(h) − ε log σ(−h), ε = smoothing: labels are believed by 1 − ε only.
    Source: Mitchell 2023, "A note on DPO with noisy preferences"."""
    h = _lead(won, lost, keys) - margin
    return -(1.0 - keys.smoothing) * logsigmoid(h) - keys.smoothing * logsigmoid(-h)


def robust_dpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """(−(1 − ε) log σ(h) + ε log σ(−h)) / (1 − 2ε): unbiased where a share ε of labels is flipped.
    Source: Chowdhury et al. 2024 (2403.00409), equation 10."""
    h = _lead(won, lost, keys) - margin
    flipped = keys.smoothing
    return (-(1.0 - flipped) * logsigmoid(h) + flipped * logsigmoid(-h)) / (1.0 - 2.0 * flipped)


def ipo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """(h/β − 1/(2β))² with sums over tokens. Source: Azar et al. 2023 (2310.12036), equation 17
    (its τ is β). Optimum: π_ref exp(E_y'[p(y ≻ y')]/β)."""
    return ((_lead(won, lost, keys) - margin) / keys.beta - 0.5 / keys.beta) ** 2


def ipo_mean(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """`ipo` with averages over tokens in place of sums, as its authors agreed for texts of unequal
    lengths (trl#1265)."""
    return (won.mean_ratio - lost.mean_ratio - margin / keys.beta - 0.5 / keys.beta) ** 2


def dpo_mean(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """`dpo` with averages over tokens. Source: Lambert et al. 2024 (2411.15124), section 5.1."""
    return -logsigmoid(keys.beta * (won.mean_ratio - lost.mean_ratio) - margin)


def hinge(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """max(0, 1 − h). Source: Zhao et al. 2023 (2305.10425); Liu et al. 2023 (2309.06657)."""
    zero = torch.zeros_like(margin)
    return torch.maximum(1.0 - _lead(won, lost, keys) + margin, zero)


def exo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """KL(softmax(u_w, u_l) ‖ (1 − ε, ε)), ε = smoothing > 0.
    Source: Ji et al. 2024 (2402.00856), equation 16."""
    h = _lead(won, lost, keys) - margin
    wanted = torch.tensor([1.0 - keys.smoothing, keys.smoothing], dtype=h.dtype).log().tolist()
    win, lose = logsigmoid(h), logsigmoid(-h)
    found: Tensor = win.exp() * (win - wanted[0]) + lose.exp() * (lose - wanted[1])
    return found


def nca(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(u_w) − ½ log σ(−u_w) − ½ log σ(−u_l).
    Source: Chen et al. 2024 (2402.05369), equation 8 for pairs."""
    u_w, u_l = keys.beta * won.log_ratio, keys.beta * lost.log_ratio
    return -logsigmoid(u_w) - 0.5 * logsigmoid(-u_w) - 0.5 * logsigmoid(-u_l)


def sppo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """(log-ratio_w − 1/(2β))² + (log-ratio_l + 1/(2β))².
    Source: Wu et al. 2024 (2405.00675), with certain labels."""
    goal = 0.5 / keys.beta
    return (won.log_ratio - goal) ** 2 + (lost.log_ratio + goal) ** 2


def apo_zero(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """1 − σ(u_w) + σ(u_l): for answers that are better than the model's own.
    Source: D'Oosterlinck et al. 2024 (2408.06266), equation 3."""
    return 1.0 - (keys.beta * won.log_ratio).sigmoid() + (keys.beta * lost.log_ratio).sigmoid()


def apo_down(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """σ(u_w) + 1 − σ(u_w − u_l): for a model that is better than both answers.
    Source: D'Oosterlinck et al. 2024 (2408.06266), equation 4."""
    h = _lead(won, lost, keys) - margin
    return (keys.beta * won.log_ratio).sigmoid() + 1.0 - h.sigmoid()


def discopop(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−(1 − m) log σ(h) + m exp(−h), m = σ(h/τ). Source: Lu et al. 2024 (2406.08414)."""
    h = _lead(won, lost, keys) - margin
    mixed = (h / keys.tau).sigmoid()
    return -(1.0 - mixed) * logsigmoid(h) + mixed * (-h).exp()


def bco(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(u_w − δ) − log σ(−(u_l − δ)), δ the running mean of the rewards u.
    Source: Jung et al. 2024 (2404.04656), equation 10."""
    u_w, u_l = keys.beta * won.log_ratio, keys.beta * lost.log_ratio
    return -logsigmoid(u_w - keys.delta) - logsigmoid(-(u_l - keys.delta))


def simpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(β mean_w − β mean_l − γ): averages over tokens, no reference.
    Source: Meng et al. 2024 (2405.14734), equation 6."""
    return -logsigmoid(keys.beta * (won.mean - lost.mean) - keys.gamma - margin)


def alpha_po(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(β r_w − β r_l − γ), r = (1 − p^−α)/α of p = exp(mean); α → 0 is `simpo`.
    Source: Gupta et al. 2025 (2501.03884), equation 7."""
    r_w, r_l = (-(-keys.alpha * side.mean).expm1() / keys.alpha for side in (won, lost))
    return -logsigmoid(keys.beta * (r_w - r_l) - keys.gamma - margin)


def orpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−mean_w − β log σ(log odds_w − log odds_l), odds = P/(1 − P) of P = exp(mean); no reference.
    Source: Hong et al. 2024 (2403.07691), equation 6 (its λ is β)."""
    return -won.mean - keys.beta * logsigmoid(_log_odds(won.mean) - _log_odds(lost.mean) - margin)


def cpo(won: Answer, lost: Answer, keys: PairKeys, margin: Tensor) -> Tensor:
    """−log σ(β (log π_w − log π_l)) − α mean_w; no reference.
    Source: Xu et al. 2024 (2401.08417), equation 5; the likelihood per token, as its authors
    compute it."""
    return -logsigmoid(keys.beta * (won.logp - lost.logp) - margin) - keys.alpha * won.mean


@dataclass(frozen=True)
class PairLossKind:
    """An entry of the table: the function, and what it asks for."""

    function: PairFunction
    worth: Literal["log_ratio", "mean_ratio", "mean", "logp"] = "log_ratio"
    """What of an answer, times β, is its implicit reward."""
    centre: bool = False
    """Whether it reads δ, the running mean of the rewards."""

    @property
    def has_reference(self) -> bool:
        """Whether it compares with a reference policy."""
        return self.worth in ("log_ratio", "mean_ratio")

    def reward(self, answer: Answer) -> Tensor:
        """What an answer is worth, before β."""
        found: Tensor = getattr(answer, self.worth)
        return found


PAIR_LOSSES: dict[str, PairLossKind] = {
    "dpo": PairLossKind(dpo),
    "cdpo": PairLossKind(cdpo),
    "robust": PairLossKind(robust_dpo),
    "ipo": PairLossKind(ipo),
    "ipo_mean": PairLossKind(ipo_mean, "mean_ratio"),
    "dpo_mean": PairLossKind(dpo_mean, "mean_ratio"),
    "hinge": PairLossKind(hinge),
    "exo": PairLossKind(exo),
    "nca": PairLossKind(nca),
    "sppo": PairLossKind(sppo),
    "apo_zero": PairLossKind(apo_zero),
    "apo_down": PairLossKind(apo_down),
    "discopop": PairLossKind(discopop),
    "bco": PairLossKind(bco, centre=True),
    "simpo": PairLossKind(simpo, "mean"),
    "alpha_po": PairLossKind(alpha_po, "mean"),
    "orpo": PairLossKind(orpo, "mean"),
    "cpo": PairLossKind(cpo, "logp"),
}
"""Every loss of pairs by the value of the key `loss`."""


def _log_odds(log_p: Tensor) -> Tensor:
    """log(P/(1 − P)) of log P ≤ 0; finite where P rounds to 1."""
    tiny = torch.finfo(log_p.dtype).eps
    return log_p - (-log_p.clamp(max=-tiny).expm1()).log()
