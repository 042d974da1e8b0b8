"""How good a model is on what was held out, each figure with its interval over prompts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plaudit.lm.kto import KTOConfig
from plaudit.ops.pair_losses import Answer, PairLossKind
from plaudit.pipelines.figures.statistics import mean_interval, pair_accuracy, share_right
from plaudit.records.pairs import Pairs
from plaudit.records.types import Trajectories


def with_interval(name: str, values: Any, groups: list[int]) -> dict[str, Any]:
    """A mean, and its 95 % interval where there are two prompts or more."""
    mean = mean_interval(values, groups)
    found: dict[str, Any] = {name: mean.value}
    if len(set(groups)) > 1:
        found[f"{name}_interval"] = [mean.low, mean.high]
    return found


def pair_figures(
    data: Trajectories,
    pairs: Pairs,
    *,
    logp: Tensor,
    ref: Tensor,
    beta: float,
    kind: PairLossKind,
) -> dict[str, Any]:
    """Accuracy and margin of held-out pairs, and how the log-probabilities have moved.

    `logp`, `ref` are [B, T], the policy's and the start's; the lead of a pair is β times the
    difference of what the loss `kind` takes for an answer's reward.
    """
    mask = data.chosen
    summed, start = ((x.double() * mask).sum(1) for x in (logp, ref))
    worth = kind.reward(Answer(summed, start, mask.sum(1).double()))
    lead = beta * (worth[list(pairs.a)] - worth[list(pairs.b)])
    share = np.array(pairs.share)
    said = np.where(share > 0.5, 1.0, np.where(share < 0.5, 0.0, 0.5))
    groups = [int(data.group[row]) for row in pairs.a]
    won = [a if q >= 0.5 else b for a, b, q in zip(pairs.a, pairs.b, pairs.share, strict=True)]
    moved = (summed - start)[won].numpy()
    signed = lead.numpy() * np.where(said == 0.0, -1.0, 1.0)
    found: dict[str, Any] = {"held_out_pairs": len(pairs)}
    found["accuracy"] = share_right(lead.numpy(), said)
    decided = {g for g, s in zip(groups, said, strict=True) if s != 0.5}
    if len(decided) > 1:
        right = pair_accuracy(lead.numpy(), said, groups)
        found["accuracy_interval"] = [right.low, right.high]
    found |= with_interval("margin", signed, groups)
    return found | with_interval("logp/chosen_change", moved, groups)


def label_figures(
    config: KTOConfig, data: Trajectories, is_good: Tensor, *, logp: Tensor, ref: Tensor
) -> dict[str, Any]:
    """Rewards β (log π − log π_ref) of good and of bad held-out answers, and their distance."""
    reward = (config.beta * ((logp - ref) * data.chosen).sum(1)).double()
    group = data.group
    found: dict[str, Any] = {"held_out_answers": len(data)}
    for name, kind in (("good", is_good), ("bad", ~is_good)):
        if bool(kind.any()):
            rows = kind.nonzero()[:, 0]
            values = reward[rows].numpy()
            found |= with_interval(f"reward/{name}", values, group[rows].tolist())
    return found


def text_figures(data: Trajectories, logp: Tensor) -> dict[str, Any]:
    """Cross-entropy of held-out tokens, and its exponential, with intervals over rows."""
    mask = data.chosen
    surprise = (-logp[mask]).double().numpy()
    rows = torch.arange(len(data))[:, None].expand_as(mask)[mask].tolist()
    found = with_interval("eval/loss", surprise, rows)
    found = {name.replace("eval/loss", "loss_held_out"): x for name, x in found.items()}
    found["perplexity_held_out"] = math.exp(found["loss_held_out"])
    return found | {"held_out_rows": len(data)}
