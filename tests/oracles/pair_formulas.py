"""Losses of preferences in float64 torch, each typed from its paper and from nothing of ours.

A formula takes the two sides of n pairs: summed log-probabilities under the policy and the
reference, and lengths in tokens, [n] each. Sigmoids and logarithms are written out, so these are
exact for moderate numbers only. Gradients are autograd's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Side(NamedTuple):
    """One answer of each pair."""

    logp: Tensor
    ref: Tensor
    length: Tensor

    @property
    def ratio(self) -> Tensor:
        """log π/π_ref of the whole answer."""
        return self.logp - self.ref

    @property
    def mean(self) -> Tensor:
        """Average log-probability of a token."""
        return self.logp / self.length


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def nll(x: Tensor) -> Tensor:
    """−log σ(x)."""
    return torch.log(1 + torch.exp(-x))


def dpo(w: Side, l: Side, *, beta: float) -> Tensor:
    """2305.18290, equation 7."""
    return nll(beta * (w.ratio - l.ratio))


def cdpo(w: Side, l: Side, *, beta: float, eps: float) -> Tensor:
    """A share ε of labels is wrong (Mitchell 2023, a note on DPO with noisy preferences)."""
    h = w.ratio - l.ratio
    return (1 - eps) * nll(beta * h) + eps * nll(-beta * h)


def robust(w: Side, l: Side, *, beta: float, eps: float) -> Tensor:
    """2403.00409, equation 12: the unbiased estimate of the loss on clean labels."""
    h = w.ratio - l.ratio
    return ((1 - eps) * nll(beta * h) - eps * nll(-beta * h)) / (1 - 2 * eps)


def ipo(w: Side, l: Side, *, beta: float) -> Tensor:
    """2310.12036, equation 17, with τ = beta."""
    return (w.ratio - l.ratio - 1 / (2 * beta)) ** 2


def ipo_mean(w: Side, l: Side, *, beta: float) -> Tensor:
    """With averages over tokens, as its authors agreed (trl#1265)."""
    return (w.ratio / w.length - l.ratio / l.length - 1 / (2 * beta)) ** 2


def dpo_mean(w: Side, l: Side, *, beta: float) -> Tensor:
    """Length-normalised DPO, 2411.15124, section 5.1."""
    return nll(beta * (w.ratio / w.length - l.ratio / l.length))


def hinge(w: Side, l: Side, *, beta: float) -> Tensor:
    """2309.06657 (RSO), section 3.3."""
    return (1 - beta * (w.ratio - l.ratio)).clamp(min=0)


def exo(w: Side, l: Side, *, beta: float, eps: float) -> Tensor:
    """2402.00856: KL from the policy's choice among the two to the smoothed label."""
    p = torch.stack([beta * w.ratio, beta * l.ratio]).softmax(0)
    label = torch.tensor([1 - eps, eps], dtype=p.dtype)[:, None]
    return (p * (p / label).log()).sum(0)


def nca(w: Side, l: Side, *, beta: float) -> Tensor:
    """2402.05369, two answers: −log σ(u_w) − ½ Σ log σ(−u)."""
    u, v = beta * w.ratio, beta * l.ratio
    return nll(u) + (nll(-u) + nll(-v)) / 2


def sppo(w: Side, l: Side, *, beta: float) -> Tensor:
    """2405.00675, with won = 1 and lost = 0: log-ratios to ±η(1 − ½), η = 1/β."""
    eta = 1 / beta
    return (w.ratio - eta * (1 - 0.5)) ** 2 + (l.ratio - eta * (0 - 0.5)) ** 2


def apo_zero(w: Side, l: Side, *, beta: float) -> Tensor:
    """2408.06266: up with the chosen one, down with the other."""
    return 1 - sigma(beta * w.ratio) + sigma(beta * l.ratio)


def apo_down(w: Side, l: Side, *, beta: float) -> Tensor:
    """2408.06266: the chosen one down too, the gap up."""
    return sigma(beta * w.ratio) + 1 - sigma(beta * (w.ratio - l.ratio))


def discopop(w: Side, l: Side, *, beta: float, tau: float) -> Tensor:
    """2406.08414, log-ratio-modulated: logistic and exponential, mixed by σ(ρ/τ)."""
    rho = beta * (w.ratio - l.ratio)
    share = sigma(rho / tau)
    return (1 - share) * nll(rho) + share * torch.exp(-rho)


def bco(w: Side, l: Side, *, beta: float, delta: float) -> Tensor:
    """2404.04656: right or wrong by a classifier whose bias is δ."""
    return nll(beta * w.ratio - delta) + nll(-(beta * l.ratio - delta))


def simpo(w: Side, l: Side, *, beta: float, gamma: float) -> Tensor:
    """2405.14734, equation 6."""
    return nll(beta * w.mean - beta * l.mean - gamma)


def alpha_po(w: Side, l: Side, *, beta: float, gamma: float, alpha: float) -> Tensor:
    """2501.03884: SimPO with (1 − p^−α)/α in the place of log p."""
    won, lost = ((1 - torch.exp(s.mean) ** -alpha) / alpha for s in (w, l))
    return nll(beta * won - beta * lost - gamma)


def orpo(w: Side, l: Side, *, beta: float) -> Tensor:
    """2403.07691, equation 6, with λ = beta: NLL a token, and the odds of the two."""
    odds = [torch.exp(s.mean) / (1 - torch.exp(s.mean)) for s in (w, l)]
    return -w.mean + beta * nll(torch.log(odds[0] / odds[1]))


def cpo(w: Side, l: Side, *, beta: float, alpha: float) -> Tensor:
    """2401.08417: preference without a reference, and the chosen answer's NLL a token."""
    return nll(beta * (w.logp - l.logp)) - alpha * w.mean


FORMULAS = {
    "dpo": (dpo, ("beta",)),
    "cdpo": (cdpo, ("beta", "eps")),
    "robust": (robust, ("beta", "eps")),
    "ipo": (ipo, ("beta",)),
    "ipo_mean": (ipo_mean, ("beta",)),
    "dpo_mean": (dpo_mean, ("beta",)),
    "hinge": (hinge, ("beta",)),
    "exo": (exo, ("beta", "eps")),
    "nca": (nca, ("beta",)),
    "sppo": (sppo, ("beta",)),
    "apo_zero": (apo_zero, ("beta",)),
    "apo_down": (apo_down, ("beta",)),
    "discopop": (discopop, ("beta", "tau")),
    "bco": (bco, ("beta", "delta")),
    "simpo": (simpo, ("beta", "gamma")),
    "alpha_po": (alpha_po, ("beta", "gamma", "alpha")),
    "orpo": (orpo, ("beta",)),
    "cpo": (cpo, ("beta", "alpha")),
}
"""Formulas by name, and the keys that each reads."""


def formula(name: str, w: Side, l: Side, **keys: float) -> Tensor:
    """Of n pairs [n]; keys that the formula does not read are left out."""
    function, reads = FORMULAS[name]
    return function(w, l, **{key: keys[key] for key in reads})


def aot_paired(w: Side, l: Side, *, beta: float, eps: float = 0.0) -> Tensor:
    """2406.05882: the batch's margins under policy and reference, each sorted, quantile against
    quantile."""
    gap = (w.logp - l.logp).sort().values - (w.ref - l.ref).sort().values
    return (1 - eps) * nll(beta * gap) + eps * nll(-beta * gap)


def aot_unpaired(w: Side, l: Side, *, beta: float, eps: float = 0.0) -> Tensor:
    """2406.05882: log-ratios of chosen and of rejected answers, each sorted over the batch."""
    gap = w.ratio.sort().values - l.ratio.sort().values
    return (1 - eps) * nll(beta * gap) + eps * nll(-beta * gap)


def kto_level(ratio: Tensor, *, beta: float) -> Tensor:
    """z of 2402.01306, equation 8: β·max(0, mean log-ratio of answers to other prompts), held."""
    return beta * ratio.detach().mean().clamp(min=0)


def kto(
    ratio: Tensor, is_good: Tensor, *, beta: float, level: Tensor | float, good: float, bad: float
) -> Tensor:
    """2402.01306, equation 8: λ − v."""
    u = beta * ratio
    return torch.where(is_good, good * (1 - sigma(u - level)), bad * (1 - sigma(level - u)))


def bco_labels(
    ratio: Tensor, is_good: Tensor, *, beta: float, level: float, good: float, bad: float
) -> Tensor:
    """2404.04656 of single answers."""
    u = beta * ratio
    return torch.where(is_good, good * nll(u - level), bad * nll(level - u))
