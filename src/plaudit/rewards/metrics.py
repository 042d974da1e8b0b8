"""What learning a reward model logs, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

REWARD_MODEL: Mapping[str, Metric] = {
    "accuracy": Metric(
        "Share of the decided comparisons that the model orders as voted: a reward model by its score,"
        " a policy by its implicit reward; an equal lead counts half.",
        "mean of 1[r(chosen) > r(rejected)], ties left out",
        "Rises from 0.5; near 1 on training data with 0.6 held out is over-fitting.",
        "up",
    ),
    "eval/accuracy": Metric(
        "Share of held-out decided comparisons that the reward model orders as voted.",
        "mean of 1[r(chosen) > r(rejected)], ties left out",
        "Above 0.5 by more than its interval; people agree with each other on 0.6 to 0.8.",
        "up",
    ),
    "eval/loss": Metric(
        "The loss on held-out examples.",
        "as loss, without training",
        "Falls; when it rises while the training loss falls, stop earlier.",
        "down",
    ),
    "eval/perplexity": Metric(
        "How surprising the held-out texts are to the model.",
        "exp(eval/loss)",
        "Falls, then levels off.",
        "down",
    ),
    "reward_model_accuracy": Metric(
        "Share of held-out decided comparisons that the finished reward model orders as voted.",
        "mean of 1[r(chosen) > r(rejected)] over prompts that training never saw",
        "Well above length_only_accuracy and the 0.5 of chance.",
        "up",
    ),
    "length_only_accuracy": Metric(
        "What preferring the longer (or always the shorter) answer would have scored.",
        "max of the accuracies of 'longer wins' and 'shorter wins'",
        "Near 0.5; when the reward model is no better than it, it has learned length alone.",
    ),
    "longer_is_better_accuracy": Metric(
        "What preferring the longer answer would have scored on held-out comparisons.",
        "mean of 1[the chosen answer is longer]",
        "Near 0.5.",
    ),
    "length_correlation": Metric(
        "Whether scores go with length.",
        "Pearson correlation of r(x, y) and the answer's tokens",
        "Near 0; above 0.3, expect the policy to write longer answers.",
    ),
    "calibration_error": Metric(
        "How far the reward model's probabilities are from the observed shares.",
        "sum over bins of (share of pairs) * |mean sigma(r_a - r_b) - share of a chosen|",
        "Below 0.1.",
        "down",
    ),
}
