"""What the language-model algorithms share: order of prompts, minibatches, and what is watched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from plaudit.ops import aggregate
from plaudit.records.losses import Numbers, Part
from plaudit.records.state import Saved
from plaudit.records.types import Trajectories


@dataclass(frozen=True)
class CrossEntropy:
    """−log π of the chosen tokens, summed and divided by the denominator."""

    needs: ClassVar[tuple[str, ...]] = ("logp",)
    together: ClassVar[bool] = False

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, which is the number too."""
        loss = aggregate(-part["logp"], part.chosen, part.denominator)
        return loss, {"loss": loss.detach()}


@dataclass
class RunningMoments:
    """Count, mean and sum of squared deviations of all scores seen (Welford 1962; Chan 1979)."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, x: Sequence[float]) -> None:
        """Take further scores in."""
        n = len(x)
        mean = math.fsum(x) / n
        m2 = math.fsum((v - mean) ** 2 for v in x)
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * n / total
        self.m2 += m2 + delta**2 * self.count * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation; 1 while the scores seen do not differ."""
        spread = math.sqrt(self.m2 / self.count) if self.count else 0.0
        return spread if spread > 1e-8 * max(1.0, abs(self.mean)) else 1.0

    def state(self) -> Saved:
        """The three numbers."""
        return {}, asdict(self)

    def restore(self, saved: Saved) -> None:
        """Takes them back."""
        facts = saved[1]
        self.count, self.mean, self.m2 = int(facts["count"]), facts["mean"], facts["m2"]


@dataclass
class KLController:
    """The price β of a nat of distance from the reference, steered towards a target.

    β ← β·(1 + clip(KL/target − 1, ±0.2)·n/horizon) for n answers; a target of None keeps β. A
    negative estimate of the KL counts as the largest fall.
    Source: Ziegler et al. 2019 (1909.08593), section 2.2.
    """

    coef: float
    target: float | None
    horizon: int

    def adapt(self, kl: float, *, num_answers: int) -> None:
        """Take in the KL that `num_answers` new answers had."""
        if self.target is not None:
            error = min(max(kl / self.target - 1.0, -0.2), 0.2)
            self.coef = self.coef * (1.0 + error * num_answers / self.horizon)

    def state(self) -> Saved:
        """β."""
        return {}, {"coef": self.coef}

    def restore(self, saved: Saved) -> None:
        """Takes β back."""
        self.coef = float(saved[1]["coef"])


def prompt_batch(num_prompts: int, *, step: int, size: int, seed: int) -> list[int]:
    """The prompts of a step: every prompt once an epoch, in an order that depends on the seed.

    A function of the step alone, so a resumed run needs no position to be kept.
    """
    return prompts_at(num_prompts, place=step * size, size=size, seed=seed)


def prompts_at(num_prompts: int, *, place: int, size: int, seed: int) -> list[int]:
    """The next `size` prompts after `place` of them were taken, epochs in orders of their own."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(place + len(chosen), num_prompts)
        order = np.random.default_rng((seed, 1, epoch)).permutation(num_prompts)
        chosen += order[offset : offset + size - len(chosen)].tolist()
    return chosen


def minibatches(group: Sequence[int], *, number: int, key: tuple[int, ...]) -> Iterator[list[int]]:
    """Rows of each minibatch: groups shuffled and dealt, the rows of a group kept together.

    `group` is each row's group, as in `Trajectories`; groups may be of any size.
    """
    rows_of: dict[int, list[int]] = {}
    for row, g in enumerate(group):
        rows_of.setdefault(g, []).append(row)
    groups = [rows_of[g] for g in sorted(rows_of)]
    order = np.random.default_rng(key).permutation(len(groups))
    for part in np.array_split(order, number):
        if len(part):
            yield [row for g in part for row in groups[g]]


def added(total: dict[str, float], numbers: Mapping[str, float]) -> None:
    """Adds numbers by name to their totals, in place."""
    for name, value in numbers.items():
        total[name] = total.get(name, 0.0) + value


def samples(
    batch: Trajectories, *, most: int = 4, logp_ref: Tensor | None = None, **numbers: Tensor
) -> list[dict[str, Any]]:
    """A few rows of a rollout for people to read, each with its own of the `numbers` [B].

    With `logp_ref` [B, T] a row has the ids of its chosen tokens too, and how many nats each of
    them lies from the reference, log π − log π_ref: their sum is the row's estimate of the KL.
    """
    stride = max(len(batch) // most, 1)
    return [
        {
            "prompt": batch.prompts[int(batch.group[row])].text,
            "completion": batch.texts[row],
            **{name: float(value[row]) for name, value in numbers.items()},
            **({} if logp_ref is None else _distances(batch, logp_ref, row)),
        }
        for row in range(0, len(batch), stride)
    ][:most]


def _distances(batch: Trajectories, logp_ref: Tensor, row: int) -> dict[str, list[Any]]:
    chosen = batch.chosen[row]
    apart = (batch.logp[row] - logp_ref[row])[chosen].tolist()
    return {
        "tokens": batch.token[row][chosen].tolist(),
        "token_kl": [round(nats, 4) for nats in apart],
    }
