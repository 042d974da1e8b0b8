"""What changed: the same held-out prompts answered before and after, judged alike.

Gold scores come from whoever the job calls gold (the noiseless rule behind the raters); the reward
model's own scores are reported beside them, since it is the gap between the two that shows
over-optimisation. Fluency is perplexity under the starting model; repetition is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from plaudit.feedback.raters import JUDGED_AT_ONCE
from plaudit.pipelines.figures.statistics import (
    calibration,
    matched_distinct_n,
    mean_interval,
    pair_accuracy,
    repetition,
    share_right,
    win_rate,
    words,
)
from plaudit.pipelines.rlhf.opinions import Opinions
from plaudit.records.types import Trajectories

Gold = Callable[[Sequence[str], Sequence[str], dict[str, list[Any]]], list[float]]
"""gold(prompts, completions, columns) -> one score each."""


@dataclass(frozen=True)
class Side:
    """One model's answers to the held-out prompts, with every judgement of them."""

    batch: Trajectories
    reward: Tensor
    logp_ref: Tensor
    """Log-probabilities [B, T] under the starting model, of the distribution drawn from."""
    logp_own: Tensor
    """The same at temperature 1 without filters, which perplexity is made of."""
    gold: list[float] | None

    @property
    def kl(self) -> Tensor:
        """Σ_t (log π − log π_ref) of each answer, nats: its mean estimates KL(π‖π_ref)."""
        return ((self.batch.logp - self.logp_ref) * self.batch.chosen).sum(1)


def gold_scores(gold: Gold | None, batch: Trajectories) -> list[float] | None:
    """The gold rater's score of every answer, or None where the job has no gold rater.

    Equal answers to one prompt are judged once, and at most `JUDGED_AT_ONCE` answers in one call.
    """
    if gold is None:
        return None
    asked = [batch.prompts[g] for g in batch.group.tolist()]
    keys = [(id(prompt), text) for prompt, text in zip(asked, batch.texts, strict=True)]
    rows = sorted({key: row for row, key in reversed(list(enumerate(keys)))}.values())
    scores: dict[tuple[int, str], float] = {}
    for start in range(0, len(rows), JUDGED_AT_ONCE):
        part = rows[start : start + JUDGED_AT_ONCE]
        columns = {n: [asked[row].columns[n] for row in part] for n in asked[part[0]].columns}
        answers = [batch.texts[row] for row in part]
        found = gold([asked[row].text for row in part], answers, columns)
        scores |= zip((keys[row] for row in part), found, strict=True)
    return [scores[key] for key in keys]


def reward_model_figures(scores: Tensor, held_out: Opinions) -> dict[str, Any]:
    """Held-out accuracy with its interval, calibration, and what length alone would have had.

    The interval is over prompts: None where only one held-out prompt has a decided comparison.
    """
    pairs, batch, groups = held_out.pairs, held_out.batch, held_out.groups()
    a, b = list(pairs.a), list(pairs.b)
    share = np.array(pairs.share)
    said = np.where(share > 0.5, 1.0, np.where(share < 0.5, 0.0, 0.5))
    margin = (scores[a] - scores[b]).double().numpy()
    length = batch.chosen.sum(1)
    longer = (length[a] - length[b]).double().numpy()
    decided = said != 0.5
    num_prompts = len({g for g, is_decided in zip(groups, decided, strict=True) if is_decided})
    interval = None
    if num_prompts > 1:
        accuracy = pair_accuracy(margin, said, groups)
        interval = [accuracy.low, accuracy.high]
    chance = torch.from_numpy(margin[decided]).sigmoid().numpy()
    reliable = calibration(chance, said[decided])
    by_length = share_right(longer, said)
    return {
        "reward_model_accuracy": share_right(margin, said),
        "reward_model_accuracy_interval": interval,
        # Whichever of "longer is better" and "shorter is better" does better: a fair opponent.
        "length_only_accuracy": max(by_length, share_right(-longer, said)),
        "longer_is_better_accuracy": by_length,
        "length_correlation": _correlation(scores, length),
        "calibration_error": reliable.error,
        "calibration": [asdict(row) for row in reliable.table],
        "held_out_comparisons": int(decided.sum()),
    }


def compare_sides(before: Side, after: Side) -> dict[str, Any]:
    """The summary's figures; keys without a gold rater hold None."""
    groups = before.batch.group.tolist()
    figures: dict[str, Any] = dict.fromkeys(
        ("win_rate", "win_rate_interval", "gold_before", "gold_after")
    )
    for name, x, y in (
        ("", before.gold, after.gold),
        ("reward_", before.reward.tolist(), after.reward.tolist()),
    ):
        if x is None or y is None:
            continue
        rate = win_rate(x, y, groups)
        stem = name.removesuffix("_") or "gold"
        figures[f"{name}win_rate"] = rate.value
        figures[f"{name}win_rate_interval"] = [rate.low, rate.high]
        for side, values in (("before", x), ("after", y)):
            mean = mean_interval(values, groups)
            figures[f"{stem}_{side}"] = mean.value
            figures[f"{stem}_{side}_interval"] = [mean.low, mean.high]
        figures |= _change(stem, np.subtract(y, x), groups)
    kl = mean_interval(after.kl.double().numpy(), groups)
    figures["kl"] = kl.value
    figures["kl_interval"] = [kl.low, kl.high]
    texts = (before.batch.texts, after.batch.texts)
    for n, stem in ((1, "distinct_1"), (2, "distinct")):
        first, second = _matched_distinct(*texts, n)
        figures[f"{stem}_before"], figures[f"{stem}_after"] = first, second
    for name, whole in (("before", before), ("after", after)):
        for key, value in _side_figures(whole).items():
            stem = key.removesuffix("_interval")
            figures[f"{stem}_{name}{key.removeprefix(stem)}"] = value
    return figures


def _matched_distinct(
    before: Sequence[str], after: Sequence[str], n: int
) -> tuple[float | None, float | None]:
    """`matched_distinct_n`, or None on both sides where no pair of answers has n words."""
    if not any(min(len(words(a)), len(words(b))) >= n for a, b in zip(before, after, strict=True)):
        return None, None
    return matched_distinct_n(before, after, n)


def _change(stem: str, gains: ArrayLike, groups: Sequence[int]) -> dict[str, Any]:
    """The mean gain with its interval: the i-th answer before beside the i-th after, by prompt."""
    mean = mean_interval(gains, groups)
    return {f"{stem}_change": mean.value, f"{stem}_change_interval": [mean.low, mean.high]}


def _side_figures(side: Side) -> dict[str, Any]:
    """Means over answers, and perplexity over tokens, each with its interval over prompts."""
    mask, group = side.batch.chosen, side.batch.group
    found: dict[str, Any] = {}
    for name, values in (
        ("length", mask.sum(1).tolist()),
        ("finished", side.batch.terminated.double().tolist()),
        ("repetition", [repetition(text) for text in side.batch.texts]),
    ):
        mean = mean_interval(values, group.tolist())
        found[name], found[f"{name}_interval"] = mean.value, [mean.low, mean.high]
    surprise = (-side.logp_own[mask]).double().tolist()
    mean = mean_interval(surprise, group[:, None].expand_as(mask)[mask].tolist())
    found["perplexity"] = math.exp(mean.value)
    found["perplexity_interval"] = [math.exp(mean.low), math.exp(mean.high)]
    return found


def answer_rows(before: Side, after: Side) -> list[dict[str, Any]]:
    """Answers side by side, the i-th to a prompt before beside the i-th after, for people."""
    rows = []
    for i, g in enumerate(before.batch.group.tolist()):
        row: dict[str, Any] = {"prompt": before.batch.prompts[g].text, "prompt_number": g}
        for name, side in (("before", before), ("after", after)):
            row[name] = side.batch.texts[i]
            row[f"gold_{name}"] = None if side.gold is None else side.gold[i]
            row[f"reward_{name}"] = float(side.reward[i])
            row[f"kl_{name}"] = float(side.kl[i])
        rows.append(row)
    return rows


def _correlation(scores: Tensor, length: Tensor) -> float:
    x, y = scores.double().numpy(), length.double().numpy()
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
