"""What a report says: from a run's summary and answers to sentences, rows and picks (no layout).

A key that the run did not measure is absent or None, and everything here then leaves it out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from plaudit.pipelines.pages.report_plots import judged_by

Row = Mapping[str, Any]
Summary = Mapping[str, Any]

NUM_PICKS = 5
NUM_RANDOM = 8
SHADE_STEPS = (-1.0, -0.3, 0.3, 1.0)
"""Distances from the starting model's mean, in its s.d., at which an answer's shade changes."""

LENGTH_CHANGE, DISTINCT_LOSS, PERPLEXITY_RISE, REPETITION_RISE = 0.25, 0.10, 1.5, 0.05
"""Changes that the report remarks on. They are our judgement: large enough to see when reading."""


@dataclass(frozen=True)
class Measure:
    """A line of the before/after table; texts are ready to show, "" where there is nothing."""

    label: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Answer:
    """One answer with its scores as text and its shade, from -2 (far below) to 2 (far above)."""

    text: str
    gold: str
    reward: str
    shade: int


@dataclass(frozen=True)
class Pair:
    """A held-out prompt with one answer of each model."""

    prompt: str
    before: Answer
    after: Answer


@dataclass(frozen=True)
class PromptChange:
    """Mean score of a prompt's answers before and after; `x_*` place them on a 0-100 scale."""

    prompt: str
    before: float
    after: float
    x_before: float
    x_after: float


def number(value: float | None, kind: str = "score") -> str:
    """A figure as the page writes it: "score" 0.42, "share" 71 %, "count" 23.4; "" for None."""
    if value is None or not math.isfinite(value):
        return ""
    if kind == "share":
        return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"
    if kind == "count":
        return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return ("0.00" if text == "-0.00" else text).replace("-", "−")


def interval(ends: Sequence[float] | None, kind: str = "score") -> str:
    """An interval as "0.31 to 0.52", or "" without one."""
    return "" if not ends else f"{number(ends[0], kind)} to {number(ends[1], kind)}"


def verdict(summary: Summary, num_prompts: int) -> str:
    """The result in one sentence, no stronger than its interval."""
    rate, ends = summary.get("win_rate"), summary.get("win_rate_interval")
    judge = "gold score"
    if rate is None:
        rate, ends = summary.get("reward_win_rate"), summary.get("reward_win_rate_interval")
        learned = not summary.get("reward_is_given")
        judge = f"reward{' model' if learned else ''}, which it was trained to please,"
    if rate is None:
        return "The answers of the two models were not scored, so this page compares texts only."
    spread = f" (95\N{NO-BREAK SPACE}% interval {interval(ends, 'share')})" if ends else ""
    start = (
        f"On {num_prompts} held-out prompts, the {judge} rates a new answer above an old one in "
        f"{number(rate, 'share')} of all pairs{spread}"
    )
    if ends and ends[0] <= 0.5 <= ends[1]:
        start = f"{start}, so no change is established"
    return f"{start}. A tie counts as half."


def measures(summary: Summary, improve: str = "ppo") -> list[Measure]:
    """The before/after table; `improve` is how the policy was improved."""
    lines = []
    learned = not summary.get("reward_is_given")
    reward = "Reward-model score, mean" if learned else "Reward, mean"
    for key, label, kind, note in (
        ("gold", "Gold score, mean", "score", "higher is better"),
        ("reward", reward, "score", f"what {improve.upper()} raises"),
        ("length", "Answer length, tokens", "count", "should change only for a reason"),
        ("finished", "Answers that ended by themselves", "share", "the rest met the length limit"),
        ("distinct_1", "Distinct words", "share", "same number of words on both sides"),
        ("distinct", "Distinct word pairs", "share", "same number of words on both sides"),
        ("repetition", "Repeated word triples", "share", "within an answer"),
        ("perplexity", "Perplexity", "count", "under the starting model"),
    ):
        shown = [_with_interval(summary, f"{key}_{side}", kind) for side in ("before", "after")]
        if any(shown):
            lines.append(Measure(label, shown[0], shown[1], note))
    if summary.get("kl") is not None:
        kl = _with_interval(summary, "kl", "count")
        lines.append(Measure("KL from the starting model", "0", kl, "nats per answer"))
    return lines


def _with_interval(summary: Summary, key: str, kind: str) -> str:
    shown = number(summary.get(key), kind)
    ends = interval(summary.get(f"{key}_interval"), kind)
    return f"{shown} ({ends})" if shown and ends else shown


def notices(summary: Summary, config: Mapping[str, Any] | None = None) -> list[str]:
    """What a careful reader should look at before believing the headline.

    A rise or fall is said only where intervals do not leave it open. `config` is the run's own, of
    which a remedy may name a key.
    """
    said = []
    seen = summary.get("held_out_seen")
    if seen:
        was, place = ("was", "its place") if seen == 1 else ("were", "their place")
        said.append(
            f"{seen} of the held-out prompts {was} trained on too, in other rows or files: this page "
            f"does not tell how the model answers new ones in {place}."
        )
    if _way(summary, "reward") == 1 and _way(summary, "gold") == -1:
        said.append(
            "The reward model's score rose while the gold score fell: the policy exploits the "
            f"reward model. {_remedy(config or {})}"
        )
    length, share = _change(summary, "length"), summary.get("length_before")
    if length is not None and share and abs(length) > LENGTH_CHANGE * share:
        way = "longer" if length > 0 else "shorter"
        if not _left_open(summary, "length"):
            said.append(
                f"Answers became {number(abs(length) / share, 'share')} {way}. Read some below to "
                "see whether length took the place of quality."
            )
    said += _fluency_notices(summary)
    accuracy, by_length = summary.get("reward_model_accuracy"), summary.get("length_only_accuracy")
    low = (summary.get("reward_model_accuracy_interval") or [accuracy])[0]
    if accuracy is not None and low <= 0.5:
        said.append("The reward model is not clearly better than a coin on held-out pairs.")
    elif accuracy is not None and by_length is not None and low <= by_length:
        said.append("The reward model is not clearly better than judging by length alone.")
    return said


def _remedy(config: Mapping[str, Any]) -> str:
    """What helps against exploitation, by the keys that the run's way of improving has."""
    improve = str(config.get("improve", "ppo"))
    keys = config.get(improve, {"kl_coef": None} if improve == "ppo" else {})
    if isinstance(keys, Mapping) and "kl_coef" in keys:
        return f"A larger {improve}.kl_coef or more comparisons are the usual remedies."
    return "Staying nearer to the starting model or more comparisons are the usual remedies."


def _way(summary: Summary, key: str) -> int:
    """1 for a rise and -1 for a fall that an interval establishes, else 0."""
    ends = _change_interval(summary, key)
    return 0 if ends is None else (ends[0] > 0) - (ends[1] < 0)


def _left_open(summary: Summary, key: str) -> bool:
    """Whether there is an interval of the change, and it holds both a rise and a fall."""
    return _change_interval(summary, key) is not None and _way(summary, key) == 0


def _change_interval(summary: Summary, key: str) -> tuple[float, float] | None:
    """The change's own interval where it was measured, else the reach of both sides' intervals."""
    own = summary.get(f"{key}_change_interval")
    if own:
        return float(own[0]), float(own[1])
    before, after = (summary.get(f"{key}_{side}_interval") for side in ("before", "after"))
    if not before or not after:
        return None
    return float(after[0]) - float(before[1]), float(after[1]) - float(before[0])


def _fluency_notices(summary: Summary) -> list[str]:
    said = []
    distinct, old = _change(summary, "distinct"), summary.get("distinct_before")
    if distinct is not None and old and distinct < -DISTINCT_LOSS * old:
        said.append(
            f"Answers became less varied: {number(summary['distinct_after'], 'share')} of their "
            f"word pairs are distinct, from {number(old, 'share')}."
        )
    repeated = _change(summary, "repetition")
    if (repeated or 0) > REPETITION_RISE and not _left_open(summary, "repetition"):
        said.append("Answers repeat themselves more than before.")
    old, new = summary.get("perplexity_before"), summary.get("perplexity_after")
    if old and new and new > PERPLEXITY_RISE * old and not _left_open(summary, "perplexity"):
        said.append(
            f"The starting model finds the new answers {new / old:.1f} times as surprising as its "
            "own (perplexity): check that they still read naturally."
        )
    return said


def _change(summary: Summary, key: str) -> float | None:
    before, after = summary.get(f"{key}_before"), summary.get(f"{key}_after")
    return None if before is None or after is None else float(after) - float(before)


def picks(answers: Sequence[Row], *, seed: int = 0) -> dict[str, list[Pair]]:
    """Answers to read: {"random", "best", "worst"}, each from different prompts.

    The random draw takes prompts and one pair of each at random. "best" and "worst" are the pairs
    with the largest and smallest gain, at most one of a prompt, and none without a score.
    """
    shade = _shader(answers)
    of_prompt: dict[tuple[str, int], list[Row]] = {}
    for row in answers:
        of_prompt.setdefault(asked(row), []).append(row)
    rng = random.Random(seed)
    prompts = rng.sample(sorted(of_prompt), min(NUM_RANDOM, len(of_prompt)))
    chosen = {"random": [rng.choice(of_prompt[prompt]) for prompt in prompts]}
    kind = judged_by(answers)
    if kind is not None:

        def gain(row: Row) -> float:
            return float(row[f"{kind}_after"]) - float(row[f"{kind}_before"])

        tops = sorted((max(rows, key=gain) for rows in of_prompt.values()), key=gain)
        lows = sorted((min(rows, key=gain) for rows in of_prompt.values()), key=gain)
        chosen["best"] = tops[::-1][:NUM_PICKS]
        chosen["worst"] = lows[:NUM_PICKS]
    return {
        name: [Pair(str(row["prompt"]), shade(row, "before"), shade(row, "after")) for row in rows]
        for name, rows in chosen.items()
    }


def asked(row: Row) -> tuple[str, int]:
    """Which prompt a row answers: its text, and its number among prompts that may have equal texts."""
    return str(row["prompt"]), int(row.get("prompt_number", 0))


def _shader(answers: Sequence[Row]) -> Any:
    """shade(row, side) -> Answer, measured against the spread of the starting model's scores."""
    kind = judged_by(answers)
    scores = [] if kind is None else [float(row[f"{kind}_before"]) for row in answers]
    mean, spread = (fmean(scores), pstdev(scores)) if scores else (0.0, 0.0)

    def shade(row: Row, side: str) -> Answer:
        step = 0
        if spread > 0:
            z = (float(row[f"{kind}_{side}"]) - mean) / spread
            step = sum(z > edge for edge in SHADE_STEPS) - 2
        gold, reward = row.get(f"gold_{side}"), row.get(f"reward_{side}")
        return Answer(str(row[side]), signed(gold), signed(reward), step)

    return shade


def signed(value: float | None) -> str:
    """A score with its sign, which does not rely on colour: +0.42, −0.10."""
    shown = number(value)
    return f"+{shown}" if shown and value is not None and value > 0 and shown != "0.00" else shown


def prompt_changes(answers: Sequence[Row]) -> list[PromptChange]:
    """Mean score of each held-out prompt before and after, largest gain first."""
    kind = judged_by(answers)
    if kind is None:
        return []
    sides: dict[tuple[str, int], tuple[list[float], list[float]]] = {}
    for row in answers:
        before, after = sides.setdefault(asked(row), ([], []))
        before.append(float(row[f"{kind}_before"]))
        after.append(float(row[f"{kind}_after"]))
    means = [(prompt, fmean(b), fmean(a)) for (prompt, _), (b, a) in sides.items()]
    ends = [value for _, b, a in means for value in (b, a)]
    low, width = min(ends), (max(ends) - min(ends)) or 1.0
    changes = [
        PromptChange(prompt, b, a, 100 * (b - low) / width, 100 * (a - low) / width)
        for prompt, b, a in means
    ]
    return sorted(changes, key=lambda change: change.before - change.after)
