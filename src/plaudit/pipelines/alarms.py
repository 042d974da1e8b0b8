"""What a person would want to be told of a run: plain sentences, from its metrics alone.

    alarms(run.read_jsonl("metrics.jsonl"))    the newest state of every alarm that holds

Pure functions over rows of metrics.jsonl, each about one stage. A curve is judged by means of windows
against its own noise, so that one odd step raises nothing; what a later step mends is told no longer.
They are signs, not verdicts: every sentence says what was seen and where to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]

FEWEST_STEPS = 6
"""Steps before a curve has a direction."""

DULL_SHARE = 0.1
"""Share of prompts with a signal below which most of a step's work is wasted."""

LENGTH_FACTOR = 1.5
"""How many times longer or shorter answers may become unnoticed."""

FINISHED_SHARE = 0.5
"""Share of answers that end by themselves below which the length limit writes the endings."""

KL_AT_START = 0.05
"""Nats per answer: a policy that has learned nothing lies 0 from the reference, within rounding."""

OF_A_PEAK = 3.5
"""Standard errors below its own highest window at which a curve has fallen: a flat, noisy curve of 6 to
200 steps is taken for a fallen one in about 1 of 50 cases (2 standard errors: 1 of 7)."""

CHANCE = 0.55
"""Accuracy that a coin reaches easily on 100 comparisons: 0.5 + 1.0 standard errors."""


@dataclass(frozen=True)
class Alarm:
    """One sign: its kind (a name for a translation), where, the sentence, and the numbers in it."""

    kind: str
    stage: str
    step: int
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A metric of one stage: its steps and values, in order."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def window(self) -> int:
        """Steps that are averaged: a quarter of the curve, 2 to 20."""
        return min(max(len(self) // 4, 2), 20)

    @property
    def first(self) -> float:
        """Mean of the first window."""
        return fmean(self.values[: self.window])

    @property
    def last(self) -> float:
        """Mean of the last window."""
        return fmean(self.values[-self.window :])

    @property
    def noise(self) -> float:
        """Standard error of the difference of two windows, by the steps' own differences.

        The median |x_{t+1} − x_t| of a steady curve with normal noise σ is 0.954 σ; a trend or one
        jump hardly moves it.
        """
        jumps = sorted(abs(b - a) for a, b in zip(self.values, self.values[1:], strict=False))
        sigma = jumps[len(jumps) // 2] / 0.954 if jumps else 0.0
        return sigma * math.sqrt(2 / self.window)

    def peak(self) -> tuple[int, float]:
        """(index of its first step, mean) of the window with the largest mean."""
        n = self.window
        means = [fmean(self.values[i : i + n]) for i in range(len(self) - n + 1)]
        best = max(range(len(means)), key=means.__getitem__)
        return best, means[best]


def alarms(rows: Iterable[Row]) -> list[Alarm]:
    """Every alarm that holds now, stages in the order they began."""
    by_stage: dict[str, list[Row]] = {}
    for row in rows:
        by_stage.setdefault(str(row.get("stage", "")), []).append(row)
    return [a for stage, own in by_stage.items() for check in CHECKS for a in check(stage, own)]


def curve(rows: Sequence[Row], name: str) -> Curve:
    """A metric of a stage's rows; rows without it, and values that are no number, are left out."""
    found = [
        (int(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
    return Curve(tuple(s for s, _ in found), tuple(v for _, v in found))


def exploited(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """The gold score falls from its peak while the reward goes on rising.

    Source: Gao et al. 2023 (2210.10760): over-optimisation of a learned reward.
    """
    judged = [row for row in rows if "gold/mean" in row and "objective/scores" in row]
    gold, reward = curve(judged, "gold/mean"), curve(judged, "objective/scores")
    if len(gold) < FEWEST_STEPS or len(gold) != len(reward):
        return
    at, peak = gold.peak()
    n = gold.window
    fall = peak - gold.last
    rise = reward.last - fmean(reward.values[at : at + n])
    if fall > OF_A_PEAK * gold.noise and rise > reward.noise and fall > 0:
        step = gold.steps[min(at + n - 1, len(gold) - 1)]
        yield Alarm(
            "exploited",
            stage,
            gold.steps[-1],
            f"The gold score has fallen from {peak:.3g} around step {step} to {gold.last:.3g}, while "
            f"the reward rose by {rise:.3g}: the policy exploits the reward model. Keep an earlier "
            "checkpoint, raise kl_coef, or collect votes on the newest answers.",
            {"peak": peak, "peak_step": float(step), "now": gold.last, "rise": rise},
        )


def without_signal(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """Groups of answers that all score alike have no advantage, and teach nothing."""
    share = curve(rows, "groups/with_signal")
    if len(share) >= 2 and share.last <= DULL_SHARE:
        dull = 1 - share.last
        yield Alarm(
            "zero_variance",
            stage,
            share.steps[-1],
            f"For {dull:.0%} of the prompts of the last {share.window} steps all answers scored "
            "alike, which teaches nothing: the prompts are all too hard or too easy, or the reward "
            "hardly varies.",
            {"share": dull, "steps": float(share.window)},
        )


def length_drift(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """Answers that grow or shrink under a reward: the cheapest thing that it may be exploited by."""
    length = curve([row for row in rows if "objective/scores" in row], "answer/length")
    if len(length) < FEWEST_STEPS or length.first <= 0 or length.last <= 0:
        return
    factor = length.last / length.first
    if max(factor, 1 / factor) >= LENGTH_FACTOR and (
        abs(length.last - length.first) > 2 * length.noise
    ):
        way = "longer" if factor > 1 else "shorter"
        yield Alarm(
            f"answers_{way}",
            stage,
            length.steps[-1],
            f"Answers have become {way}: {length.first:.0f} tokens in the first {length.window} "
            f"steps, {length.last:.0f} in the last. See in the samples whether that is wanted; a "
            "reward model often takes length for quality.",
            {"first": length.first, "now": length.last},
        )


def without_end(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """Answers that the length limit cuts: no end token is drawn."""
    ended = curve(rows, "answer/finished")
    if len(ended) < 2:
        return
    if max(ended.values) == 0:
        yield Alarm(
            "never_ends",
            stage,
            ended.steps[-1],
            "Not one answer has ended by itself: the model draws no end token, or "
            "sampling.max_new_tokens is too small for any.",
        )
    elif ended.last < FINISHED_SHARE:
        yield Alarm(
            "missing_end",
            stage,
            ended.steps[-1],
            f"Only {ended.last:.0%} of the answers of the last {ended.window} steps ended by "
            "themselves; the others were cut at the length limit. Raise sampling.max_new_tokens, or "
            "missing_eos_penalty.",
            {"share": ended.last, "steps": float(ended.window)},
        )


def kl_at_start(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """Before its first update the policy is the reference: any distance is a fault of the set-up."""
    kl = curve(rows, "objective/kl")
    if len(kl) and kl.steps[0] == 1 and abs(kl.values[0]) > KL_AT_START:
        yield Alarm(
            "kl_at_start",
            stage,
            1,
            f"The KL to the reference was {kl.values[0]:.3g} nats per answer before the first "
            "update, where it must be 0: sampling and scoring disagree, or the reference is "
            "another model.",
            {"kl": kl.values[0]},
        )


def reward_at_chance(stage: str, rows: Sequence[Row]) -> Iterator[Alarm]:
    """A reward model that tells held-out answers apart as a coin does: what it teaches is noise."""
    held_out = curve(rows, "eval/accuracy")
    if stage not in ("reward_model", "reward") or len(held_out) < 2:
        return
    now = held_out.values[-1]
    if now < CHANCE:
        yield Alarm(
            "reward_at_chance",
            stage,
            held_out.steps[-1],
            f"The reward model prefers the same answer as people on {now:.0%} of the held-out "
            "comparisons, near the 50 % of a coin: what it teaches a policy is mostly noise. "
            "Collect more votes, or compare answers that differ more.",
            {"accuracy": now},
        )


CHECKS: tuple[Callable[[str, Sequence[Row]], Iterator[Alarm]], ...] = (
    exploited,
    without_signal,
    length_drift,
    without_end,
    kl_at_start,
    reward_at_chance,
)
"""Every check, the gravest first."""
