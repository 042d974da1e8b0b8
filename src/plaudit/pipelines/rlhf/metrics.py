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
    "gold_change": Metric(
        "Mean gain in gold score from the answer before to the one after.",
        "mean over answers of gold(x, y_after) - gold(x, y_before), on held-out prompts",
        "Above 0 by more than its interval.",
        "up",
    ),
    "reward_win_rate": Metric(
        "The win rate by the reward model's score, which the policy was trained to please.",
        "mean of 1[after > before] + 1[equal] / 2 of reward-model scores, on held-out prompts",
        "Above 0.5; it says only that training worked, where win_rate says whether it was wanted.",
    ),
    "reward_before": Metric(
        "Mean score that the reward model gives the answers of the starting model.",
        "mean of r(x, y), y drawn before training, on held-out prompts; in the model's own units",
        "Any level: only its distance to reward_after says something.",
    ),
    "reward_after": Metric(
        "Mean score that the reward model gives the answers of the improved model.",
        "mean of r(x, y), y drawn after training, on held-out prompts; in the model's own units",
        "Above reward_before; where the gold score does not follow, the reward model is exploited.",
    ),
    "reward_change": Metric(
        "Mean gain in the reward model's score from the answer before to the one after.",
        "reward_after - reward_before, in the model's own units",
        "Above 0, beside a rise of the gold score.",
    ),
    "held_out_comparisons": Metric(
        "Decided comparisons that judge the reward model, which never learned from them.",
        "count of held-out comparisons that prefer one answer",
        "The more, the narrower the interval of reward_model_accuracy.",
    ),
    "held_out_seen": Metric(
        "Held-out prompts that were trained on too, in other rows or files.",
        "count of held-out prompts that equal a prompt that is trained on",
        "0; of others the report does not tell how new prompts are answered.",
        "down",
    ),
    "seconds": Metric(
        "Time that the work took, in seconds, over all its sittings.",
        "sum over stages of the time spent in them",
        "As the check before the run foretold, or less.",
    ),
    "cpu_seconds": Metric(
        "Time of the processor that the work took, in seconds: of all threads and sittings.",
        "sum over stages of the processor time of the process in them",
        "Near seconds times threads; far below where other work shares the machine.",
    ),
}

RESULTS = (
    "win_rate",
    *(f"gold_{part}" for part in ("before", "after", "change")),
    "reward_win_rate",
    *(f"reward_{part}" for part in ("before", "after", "change")),
    "kl",
    *(
        f"{stem}_{side}"
        for stem in ("length", "finished", "distinct", "distinct_1", "repetition", "perplexity")
        for side in ("before", "after")
    ),
    "reward_model_accuracy",
    "length_only_accuracy",
    "longer_is_better_accuracy",
    "length_correlation",
    "calibration_error",
    "held_out_comparisons",
    "held_out_seen",
    "seconds",
    "cpu_seconds",
)
"""Results in the order in which they are read: what was wanted first, then what it cost."""
