"""Critic-free advantages and surrogates in float64, by loops over groups, rows and tokens.

Typed from the papers and from nothing of ours. Rewards come as lists of groups; log-probabilities
of a batch as lists of rows [T_i], without padding. Gradients are autograd's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Group = Sequence[float]
Rows = Sequence[Tensor]

# --- advantages: groups of rewards in, groups of advantages out


def grpo(groups: Sequence[Group], *, ddof: int, eps: float) -> list[list[float]]:
    """2402.03300, section 4.1.2; ddof 1 as its implementations take it."""
    out = []
    for r in groups:
        mean = math.fsum(r) / len(r)
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in r) / (len(r) - ddof))
        out.append([(x - mean) / (spread + eps) if max(r) > min(r) else 0.0 for x in r])
    return out


def dr_grpo(groups: Sequence[Group]) -> list[list[float]]:
    """2503.20783: without the spread."""
    return [[x - math.fsum(r) / len(r) for x in r] for r in groups]


def rloo(groups: Sequence[Group]) -> list[list[float]]:
    """2402.14740, equation 6: against the mean of the others."""
    return [
        [
            x - math.fsum(y for j, y in enumerate(r) if j != i) / (len(r) - 1)
            for i, x in enumerate(r)
        ]
        for r in groups
    ]


def batch_scaled(groups: Sequence[Group], *, ddof: int, eps: float) -> list[list[float]]:
    """2508.08221: the group's mean, and the spread of the rewards of the whole batch."""
    spread = float(np.std([x for r in groups for x in r], ddof=ddof))
    return [[a / (spread + eps) for a in adv] for adv in dr_grpo(groups)]


def max_rl(groups: Sequence[Group]) -> list[list[float]]:
    """2602.02710: (r − μ)/μ, nothing where μ ≤ 0."""
    out = []
    for r in groups:
        mean = math.fsum(r) / len(r)
        out.append([(x - mean) / mean if mean > 0 else 0.0 for x in r])
    return out


def opo(groups: Sequence[Group], lengths: Sequence[Sequence[int]]) -> list[list[float]]:
    """2505.23585: against the mean weighed by length."""
    out = []
    for r, n in zip(groups, lengths, strict=True):
        middle = math.fsum(x * k for x, k in zip(r, n, strict=True)) / sum(n)
        out.append([x - middle for x in r])
    return out


def gdpo(
    rewards: Sequence[Sequence[Group]], weights: Sequence[float], *, ddof: int, eps: float
) -> list[list[float]]:
    """2601.05242: each reward normalised in its group, weighed, summed, whitened over sequences."""
    each = [grpo(groups, ddof=ddof, eps=eps) for groups in rewards]
    total = [
        [math.fsum(w * a[g][i] for w, a in zip(weights, each, strict=True)) for i in range(len(r))]
        for g, r in enumerate(rewards[0])
    ]
    flat = [x for r in total for x in r]
    mean, spread = float(np.mean(flat)), float(np.std(flat))
    return [[(x - mean) / spread for x in r] for r in total]


def whitened_returns(
    score: Sequence[float], kl: Sequence[Sequence[float]], *, beta: float
) -> list[list[float]]:
    """REINFORCE++ (2501.03262, section 3.2): token returns of a score at the end less β·KL at each
    token, whitened over all tokens of the batch (population spread)."""
    returns = [
        [s - beta * math.fsum(k[t:]) for t in range(len(k))] for s, k in zip(score, kl, strict=True)
    ]
    return whitened(returns)


def whitened(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """(x − mean)/s.d. over every number of every row."""
    flat = [x for row in rows for x in row]
    mean, spread = float(np.mean(flat)), float(np.std(flat))
    return [[(x - mean) / spread for x in row] for row in rows]


# --- surrogates: rows of tokens in, rows of losses out; A is one number a row


def _rows(name, logp: Rows, old: Rows, adv: Sequence[float], **keys) -> list[Tensor]:
    return [name(x, y, a, **keys) for x, y, a in zip(logp, old, adv, strict=True)]


def clip(logp: Tensor, old: Tensor, a: float, *, low: float, high: float) -> Tensor:
    """1707.06347, equation 7, with sides of their own (2503.14476)."""
    out = []
    for x, y in zip(logp, old, strict=True):
        ratio = torch.exp(x - y)
        inside = min(max(float(ratio.detach()), 1 - low), 1 + high)
        out.append(
            -ratio * a if float(ratio.detach()) * a <= inside * a else ratio * 0 - inside * a
        )
    return torch.stack(out) if out else logp


def capped(logp: Tensor, old: Tensor, a: float, *, low: float, high: float, cap: float) -> Tensor:
    """2505.07291: two-sided clipping, where the ratio is first held at δ: it binds for A < 0."""
    plain = clip(logp, old, a, low=low, high=high)
    ratio = torch.exp(logp - old)
    return torch.where((ratio > cap) & (torch.tensor(a) < 0), 0 * ratio - cap * a, plain)


def gspo(logp: Tensor, old: Tensor, a: float, *, low: float, high: float) -> Tensor:
    """2507.18071, equation 5: the ratio of a token's geometric mean, clipped for the whole answer."""
    mean = (logp - old).sum() / len(logp)
    return clip(mean[None], torch.zeros_like(mean)[None], a, low=low, high=high).expand(len(logp))


def sequence(logp: Tensor, old: Tensor, a: float, *, low: float, high: float) -> Tensor:
    """An answer as one action: its whole ratio, clipped (2402.14740 with PPO's clip)."""
    whole = (logp - old).sum()
    return clip(whole[None], torch.zeros_like(whole)[None], a, low=low, high=high).expand(len(logp))


def gmpo(logp: Tensor, old: Tensor, a: float, *, low: float, high: float) -> Tensor:
    """2507.20673: token ratios held in [e^−low, e^high] on A's side, then their geometric mean."""
    held = []
    for x, y in zip(logp, old, strict=True):
        log_ratio = x - y
        bound = min(max(float(log_ratio.detach()), -low), high)
        passes = float(log_ratio.detach()) * a <= bound * a
        held.append(log_ratio if passes else log_ratio * 0 + bound)
    return -a * torch.exp(sum(held) / len(held)).expand(len(logp))


def cispo(logp: Tensor, old: Tensor, a: float, *, cap: float) -> Tensor:
    """2506.13585, equation 4, without a lower bound: −sg(min(ρ, ε_max))·A·log π."""
    return -torch.exp(logp - old).detach().clamp(max=cap) * a * logp


def sapo(logp: Tensor, old: Tensor, a: float, *, tau_up: float, tau_down: float) -> Tensor:
    """2511.20347: −(4/τ)·σ(τ(ρ − 1))·A."""
    tau = tau_up if a > 0 else tau_down
    return -(4 / tau) / (1 + torch.exp(-tau * (torch.exp(logp - old) - 1))) * a


# --- denominators


def mean_of_answers(rows: Rows) -> Tensor:
    """GRPO: 1/B Σ 1/|o| Σ; an empty answer adds nothing and is counted."""
    return sum(row.sum() / max(len(row), 1) for row in rows) / len(rows)


def mean_of_tokens(rows: Rows) -> Tensor:
    """DAPO, over the whole batch."""
    return sum(row.sum() for row in rows) / sum(len(row) for row in rows)


def mean_of_prompts(groups: Sequence[Rows]) -> Tensor:
    """DAPO as its paper has it: over the tokens of each group, then over prompts."""
    return sum(mean_of_tokens(rows) for rows in groups) / len(groups)


def over_constant(rows: Rows, *, longest: int) -> Tensor:
    """Dr.GRPO: by the answers times a constant length."""
    return sum(row.sum() for row in rows) / (len(rows) * longest)


# --- divergences of a drawn token, r = π_ref/π


def k1(logp: Tensor, ref: Tensor) -> Tensor:
    return -torch.log(torch.exp(ref) / torch.exp(logp))


def k2(logp: Tensor, ref: Tensor) -> Tensor:
    return torch.log(torch.exp(ref) / torch.exp(logp)) ** 2 / 2


def k3(logp: Tensor, ref: Tensor) -> Tensor:
    r = torch.exp(ref) / torch.exp(logp)
    return r - 1 - torch.log(r)


# --- several answers


def pass_at_k(n: int, right: int, k: int) -> float:
    """Share of the k-subsets of n answers that hold a right one (2107.03374), by listing them."""
    every = list(itertools.combinations(range(n), k))
    return sum(any(i < right for i in chosen) for chosen in every) / len(every)


def best_of_n(prob: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """The distribution of the best of n draws, no two scores being equal."""
    order = np.argsort(score)
    below = np.concatenate([[0.0], np.cumsum(prob[order])])
    out = np.empty_like(prob)
    out[order] = np.diff(below**n)
    return out


def best_of_n_bound(n: int) -> float:
    """log n − (n − 1)/n, which KL(best of n ‖ π) does not exceed (2401.01879)."""
    return math.log(n) - (n - 1) / n
