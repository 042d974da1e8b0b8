"""What the RLHF job says of before and after."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

BEFORE_AND_AFTER: Mapping[str, Metric] = {
    "gold/mean": Metric(
        "Mean gold score of one rollout's answers: logged while PPO runs, never trained on.",
        "mean over answers of gold(x, y)",
        "Rises with objective/scores; falling while they rise means that the reward is exploited.",
        "up",
    ),
    "probe/accuracy": Metric(
        "Cross-validated accuracy of the linear probe that the reward model starts from.",
        "agreeing decided training pairs / decided training pairs, whole prompts left out in turn",
        "The bar for the trained reward model; near 0.5 means that there is little to learn.",
        "up",
    ),
    "probe/ridge": Metric(
        "The probe's penalty, chosen by cross-validation.",
        "argmax over ridge of probe/accuracy; the larger one on a tie",
        "Large with few comparisons.",
    ),
    "gold": Metric(
        "Mean score of the answers by the gold rater, the truth behind the feedback.",
        "mean of gold(x, y); the job must name a gold rater",
        "Rises with the reward model's score; when the two part, the reward model is exploited.",
        "up",
    ),
    "win_rate": Metric(
        "Share of pairings in which the answer after training beats the one before.",
        "mean of 1[after > before] + 1[equal] / 2, on held-out prompts",
        "Above 0.5 by more than its interval.",
        "up",
    ),
}
