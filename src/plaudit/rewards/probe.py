"""A linear Bradley–Terry probe on the mean of an answer's hidden states.

    s(answer) = w · (mean_t h_t − μ) / σ

The loss is convex in w, so the probe is found exactly in milliseconds; its ridge penalty is chosen
by cross-validation over whole prompts. It is a reward model's yardstick ("does training the layers
buy anything?") and its start (`models/probe_start.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.records.pairs import Pairs

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Penalties tried, per comparison and in units of standardised features."""

NUM_FOLDS = 4
NUM_NEWTON_STEPS = 12
"""Newton's method on a ridge-penalised logistic loss is at float64 precision after six to ten."""


@dataclass(frozen=True)
class Probe:
    """`weight`, `mean`, `std` [H] in float64, and the cross-validated accuracy of the choice."""

    weight: Tensor
    mean: Tensor
    std: Tensor
    ridge: float
    accuracy: float

    def __call__(self, features: Tensor) -> Tensor:
        """Scores [...] of features [..., H]; a difference of two is a log-odds."""
        x = (features.double() - self.mean) / self.std
        return (x @ self.weight).to(features.dtype)


def fit_probe(features: Tensor, pairs: Pairs, group: Sequence[int]) -> Probe:
    """The probe with the best cross-validated accuracy, refitted on all pairs.

    `features` is [B, H], `group` names the prompt of each row. Needs decided pairs of at least two
    prompts for the cross-validation; with fewer the strongest penalty is taken.
    """
    x = features.double()
    mean, std = x.mean(0), x.std(0).clamp_min(1e-8)
    x = (x - mean) / std
    a, b = torch.tensor(pairs.a), torch.tensor(pairs.b)
    difference, share = x[a] - x[b], torch.tensor(pairs.share, dtype=torch.float64)
    prompt = torch.tensor([group[i] for i in pairs.a])
    fold = prompt % NUM_FOLDS
    accuracies = {}
    if len(set(fold.tolist())) > 1:
        for ridge in RIDGES:
            agreed, decided = 0, 0
            for k in sorted(set(fold.tolist())):
                train, test = fold != k, (fold == k) & (share != 0.5)
                weight = _newton(difference[train], share[train], ridge)
                right = (difference[test] @ weight) * (share[test] - 0.5) > 0
                agreed, decided = agreed + int(right.sum()), decided + int(test.sum())
            accuracies[ridge] = agreed / max(decided, 1)
    best = max(accuracies, key=lambda r: (accuracies[r], r)) if accuracies else RIDGES[-1]
    weight = _newton(difference, share, best)
    return Probe(weight, mean, std, best, accuracies.get(best, float("nan")))


def _newton(difference: Tensor, share: Tensor, ridge: float) -> Tensor:
    """argmin_w of mean cross-entropy(σ(difference · w), share) + ridge/2 · |w|²."""
    num, width = difference.shape
    weight = difference.new_zeros(width)
    penalty = ridge * torch.eye(width, dtype=difference.dtype)
    for _ in range(NUM_NEWTON_STEPS):
        p = torch.sigmoid(difference @ weight)
        gradient = difference.T @ (p - share) / num + ridge * weight
        curvature = (difference * (p * (1 - p))[:, None]).T @ difference / num + penalty
        weight = weight - torch.linalg.solve(curvature, gradient)
    return weight
