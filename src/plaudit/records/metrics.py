"""The glossary: what every number that is logged means, its formula, and what is healthy.

Names are those of the field (TRL's PPO logs under the same ones), so that curves compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.errors import UserError, nearest
from plaudit.records.metric import Metric
from plaudit.records.metrics_control import CONTROL

GLOSSARY: Mapping[str, Metric] = {
    # --- what the policy is asked to do
    "objective/scores": Metric(
        "Mean score of the answers of one rollout, as the reward gives it.",
        "mean over answers of r(x, y)",
        "Rises and levels off; a steep late rise with a large KL is the mark of over-optimisation.",
        "up",
    ),
    "objective/kl": Metric(
        "How far the policy has moved from the reference, in nats for a whole answer.",
        "mean over answers of sum_t (log pi(y_t) - log pi_ref(y_t)), answers drawn from pi",
        "Begins at 0 and grows to some nats or tens; below 0 beyond noise means that sampling and"
        " scoring disagree.",
    ),
    "objective/non_score_reward": Metric(
        "The part of the reward that is the penalty for leaving the reference.",
        "-kl_coef * objective/kl",
        "Slightly negative; when it outweighs the scores, kl_coef is too large.",
    ),
    "objective/rlhf_reward": Metric(
        "What PPO maximises: the scaled score minus the penalties.",
        "mean of (scaled score - missing-end penalty) - kl_coef * KL",
        "Rises; flat while scores rise means that the penalty takes all that is gained.",
        "up",
    ),
    "sqrt_kl": Metric(
        "The distance in which over-optimisation curves are drawn.",
        "sqrt(KL(pi || pi_ref)), nats^0.5",
        "The gold score rises, peaks and falls along it (Gao et al. 2022).",
    ),
    "kl_coef": Metric(
        "Weight of the penalty for leaving the reference.",
        "beta <- beta * (1 + clip(KL / target - 1, -0.2, 0.2) * n / horizon) when a target is set",
        "Constant without a target; otherwise moves until KL is near the target.",
    ),
    # --- the policy's update
    "policy/approxkl_avg": Metric(
        "How far the updates on one rollout have moved the policy from the one that drew it.",
        "mean over tokens and updates of (log pi - log pi_old)^2 / 2",
        "0.0005 to 0.02; far above, lower lr or num_epochs.",
    ),
    "policy/clipfrac_avg": Metric(
        "Share of the tokens whose probability ratio left the clip range.",
        "mean of 1[|pi / pi_old - 1| > clip]",
        "0 to 0.2; above 0.3 the updates are too large, always 0 means they hardly move.",
    ),
    "policy/entropy_avg": Metric(
        "How undecided the policy is at each token, in nats.",
        "mean over tokens of -sum_v pi(v) log pi(v)",
        "Falls slowly; a fall to near 0 means that the answers become all alike.",
    ),
    "policy/nll": Metric(
        "Surprise of the drawn tokens under the distribution they were drawn from, in nats.",
        "mean over tokens of -log pi(y_t)",
        "Near the entropy, of which it is an estimate.",
    ),
    "policy/num_updates": Metric(
        "Gradient steps taken on one rollout.",
        "num_epochs * num_minibatches, fewer when stopped early",
        "Fewer than planned means that max_policy_kl stopped the epoch: lower lr if it is frequent.",
    ),
    "loss/policy_avg": Metric(
        "The clipped policy loss; its sign and size mean little, as advantages are centred.",
        "-min(ratio * A, clip(ratio, 1 - c, 1 + c) * A), mean over tokens",
        "Small and around 0 to -0.05; it need not fall.",
    ),
    "loss/value_avg": Metric(
        "Error of the critic's estimate of the return.",
        "max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2, mean over tokens",
        "Falls in the first steps, then follows the spread of the returns.",
        "down",
    ),
    "val/ratio": Metric(
        "Mean probability ratio of the drawn tokens, new policy to the one that drew them.",
        "mean of exp(log pi - log pi_old)",
        "Within about 1 +- 0.02; exactly 1 before the first update, else a bug.",
    ),
    "val/clipfrac_avg": Metric(
        "Share of the tokens whose value moved by more than value_clip in the updates.",
        "mean of 1[|V - V_old| > value_clip]",
        "0 to 0.3.",
    ),
    "val/explained_variance": Metric(
        "Share of the variance of the returns that the critic foresaw.",
        "1 - Var(R - V) / Var(R)",
        "Rises from about 0 towards 1; below 0 the critic is worse than a constant.",
        "up",
    ),
    # --- any optimiser
    "loss": Metric(
        "The loss of one step, as the algorithm minimises it.",
        "sft: mean over tokens of -log pi(y_t); reward model: mean of -log sigma(r_w - r_l)",
        "Falls; a reward model begins at ln 2 = 0.693.",
        "down",
    ),
    "lr": Metric(
        "The learning rate of this step.",
        "the config's lr times its schedule",
        "Follows the schedule, to 0 at the end of a linear one.",
    ),
    "grad_norm": Metric(
        "Length of the gradient before it is clipped.",
        "sqrt(sum of squares over all trained parameters)",
        "Steady; single spikes are clipped, steady growth or NaN means that lr is too large.",
    ),
    "grad_norm/critic": Metric(
        "Length of the critic's gradient before it is clipped.",
        "sqrt(sum of squares over the critic's trained parameters)",
        "Large at first while values are wrong, then steady.",
    ),
    "num_tokens": Metric(
        "Tokens that the loss of this step counted.",
        "sum of the mask",
        "As the batch size and the texts' lengths let expect.",
    ),
    # --- answers
    "answer/length": Metric(
        "Mean length of the answers in tokens, the stop token included.",
        "sum of the mask / answers",
        "Watch it beside the score: a reward model that likes length makes it grow.",
    ),
    "answer/finished": Metric(
        "Share of the answers that ended with a stop token rather than at the length limit.",
        "mean of 1[a stop token was drawn]",
        "Near 1; when it falls, raise the limit or the missing-end penalty.",
        "up",
    ),
    "distinct_1": Metric(
        "Share of different words among all words of the answers.",
        "|unique words| / |words|, at matched numbers of words",
        "A fall from before to after means that the answers repeat themselves.",
    ),
    "distinct_2": Metric(
        "Share of different word pairs among all neighbouring word pairs of the answers.",
        "|unique bigrams| / |bigrams|, at matched numbers of words",
        "A fall from before to after means that the answers repeat themselves.",
    ),
    "repetition": Metric(
        "Share of an answer that repeats word sequences said earlier in it.",
        "see pipelines/figures/statistics.py, repetition",
        "Near 0; a rise is the commonest sign of a policy gone wrong.",
        "down",
    ),
    "perplexity": Metric(
        "How surprising the answers are to the starting model: a measure of fluency.",
        "exp(mean over tokens of -log pi_ref(y_t)), at temperature 1",
        "Moderate; far above the start the text is odd, far below it is dull.",
    ),
    # --- the reward model
    "accuracy": Metric(
        "Share of this step's decided comparisons that the reward model orders as voted.",
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
    # --- before and after
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
    # --- feedback
    "feedback/votes": Metric(
        "Votes collected so far.",
        "count",
        "Rises to items times votes for each item.",
        "up",
    ),
    "feedback/ties": Metric(
        "Share of the votes that call two answers equally good.",
        "ties / votes",
        "Below 0.3; many ties mean that the answers are too alike to learn from.",
    ),
    # --- finite worlds
    "bound": Metric(
        "What the value can be wrong by at most, in any state; proved, rounding included.",
        "max_s |V(s) - V*(s)| <= bound, from the change of one more sweep",
        "Falls to tol; above it at the end, rounding or the limit of sweeps allows no better.",
        "down",
    ),
    "value": Metric(
        "The value where episodes begin; while learning, by the learner's own estimate.",
        "sum_s p_0(s) max_a Q(s, a); of a game: what player 0 wins at best play",
        "Levels off; above optimal_value, the learner overrates what it has tried little.",
    ),
    "policy_value": Metric(
        "What the greedy policy is truly worth where episodes begin, computed from the rules.",
        "sum_s p_0(s) V_pi(s), pi(s) = argmax_a Q(s, a)",
        "Rises to optimal_value, by jumps, as one changed action can matter much.",
        "up",
    ),
    "optimal_value": Metric(
        "The best that any policy is worth where episodes begin.",
        "sum_s p_0(s) V*(s), by planning",
        "The level that policy_value should reach.",
    ),
    "iterations": Metric(
        "Sweeps over the world, or improvements of the policy, as the method says.",
        "count",
        "Fewer is faster only at equal cost of each.",
    ),
    "episode/return": Metric(
        "Mean return of the episodes that ended since the last line, exploration included.",
        "mean over episodes of sum_t r_t, not discounted",
        "Rises, and stays below the optimum by what exploring costs.",
        "up",
    ),
    "episode/length": Metric(
        "Mean number of steps of the episodes that ended since the last line.",
        "mean over episodes of T",
        "Falls where each step costs; rises where it pays to last.",
    ),
    "episode/count": Metric(
        "Episodes that have ended so far.",
        "count",
        "Rises steadily; flat means that the policy walks in circles: set max_episode_steps.",
        "up",
    ),
    "exploitability": Metric(
        "What the players of a game together would gain if each alone left for its best answer.",
        "sum_p (max_a u_p(a, x_-p) - u_p(x)); in a zero-sum game max_i (A y)_i - min_j (x A)_j",
        "Falls to 0 in zero-sum games, like 1/sqrt(steps) or faster; elsewhere it need not.",
        "down",
    ),
    "upper": Metric(
        "No policy is worth more than this in the beginning belief.",
        "upper bound on V*(b_0) by point-based backups, proved",
        "Falls towards lower.",
        "down",
    ),
    "lower": Metric(
        "The found policy is worth at least this in the beginning belief.",
        "max over alpha-vectors of sum_s b_0(s) alpha(s), a lower bound on V*(b_0), proved",
        "Rises towards upper.",
        "up",
    ),
    # --- agents in Gymnasium worlds
    **CONTROL,
}

ALIASES: Mapping[str, str] = {
    "kl": "objective/kl",
    "score": "objective/scores",
    "scores": "objective/scores",
    "reward": "objective/rlhf_reward",
    "clipfrac": "policy/clipfrac_avg",
    "approxkl": "policy/approxkl_avg",
    "entropy": "policy/entropy_avg",
    "ratio": "val/ratio",
    "length": "answer/length",
    "finished": "answer/finished",
    "distinct": "distinct_2",
    "gold_before": "gold",
    "gold_after": "gold",
}
"""Short names that people type, and names of the report, for entries of the glossary."""


def find_metric(name: str) -> tuple[str, Metric]:
    """The entry of a name, of an alias, or of the part after its slash.

    Raises UserError with the nearest name where there is none.
    """
    for candidate in (name, ALIASES.get(name, "")):
        if candidate in GLOSSARY:
            return candidate, GLOSSARY[candidate]
    for side in ("_before", "_after", "_interval"):
        if name.endswith(side):
            return find_metric(name.removesuffix(side))
    short = [full for full in GLOSSARY if full.rpartition("/")[2].removesuffix("_avg") == name]
    if len(short) == 1:
        return short[0], GLOSSARY[short[0]]
    hint = nearest(name, [*GLOSSARY, *ALIASES])
    raise UserError(f"no metric {name!r} in the glossary{hint}; 'plaudit explain' lists all")
