"""What the algorithms on text log, beside those that log it."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

TEXT: Mapping[str, Metric] = {
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
    "sampler/ratio": Metric(
        "Mean probability ratio of the drawn tokens, the trainer's policy to the sampler's of lower "
        "precision, before any update and before it is capped.",
        "mean of exp(log pi_old - log pi_drawn)",
        "1 +- 0.02: its expectation is 1 whatever the precision; far off, a bug.",
    ),
    "sampler/ratio_std": Metric(
        "Spread of that ratio over the drawn tokens.",
        "standard deviation of exp(log pi_old - log pi_drawn)",
        "Below 0.2; above, rounding costs more than it saves: use sampler_precision float32.",
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
    "policy/clipfrac_low": Metric(
        "Share of the tokens whose probability ratio fell below the range.",
        "mean of 1[pi / pi_old < 1 - clip]",
        "0 on the first update of a rollout; above 0.2 the updates are too large.",
    ),
    "policy/clipfrac_high": Metric(
        "Share of the tokens whose probability ratio rose above the range.",
        "mean of 1[pi / pi_old > 1 + clip_high]",
        "0 on the first update of a rollout; above 0.2 the updates are too large.",
    ),
    "groups/with_signal": Metric(
        "Share of the prompts whose answers do not all score alike: only these teach anything.",
        "groups with max r > min r / groups drawn",
        "0.3 to 0.9; near 0 the run is dead: prompts are all too hard, all too easy, or the reward is"
        " constant.",
        "up",
    ),
    "prompts/drawn": Metric(
        "Prompts drawn for a step, those drawn in place of prompts without a signal included.",
        "prompts_per_step, and refills' on top",
        "prompts_per_step without refills; far above it, most prompts teach nothing.",
    ),
    "answer/judged": Metric(
        "Share of the answers that at least one reward judged; the others are left out.",
        "mean of 1[some reward gave a number]",
        "1, unless rewards abstain on purpose.",
        "up",
    ),
    "objective/best": Metric(
        "Mean score of the best answer to each prompt, of those that are learned.",
        "mean over prompts of max_i r(x, y_i)",
        "Above objective/scores, which follows it.",
        "up",
    ),
    "kl_bound_of_n": Metric(
        "The most that the best of n answers is away from the policy that drew them.",
        "log n - (n - 1) / n, nats",
        "A constant of n: 1.2 nats for 8.",
    ),
    # --- preferences
    "margin": Metric(
        "By how much the preferred answer leads, in units of the implicit reward.",
        "mean over pairs of beta * (log-ratio of chosen - log-ratio of rejected)",
        "Begins at 0 and rises; on held-out pairs its interval should be above 0.",
        "up",
    ),
    "logp/chosen": Metric(
        "Log-probability of the chosen answers, summed over tokens.",
        "mean over pairs of sum_t log pi(y_w,t)",
        "Steady or rising; a fall means that probability goes to answers nobody compared.",
        "up",
    ),
    "logp/rejected": Metric(
        "Log-probability of the rejected answers, summed over tokens.",
        "mean over pairs of sum_t log pi(y_l,t)",
        "Falls, further than that of the chosen ones.",
        "down",
    ),
    "logp/chosen_change": Metric(
        "How much more likely the chosen answers are than under the reference, in nats.",
        "mean over pairs of sum_t (log pi - log pi_ref)(y_w,t)",
        "Above about -5; far below, raise beta, lower lr or set nll_coef.",
        "up",
    ),
    "reward/good": Metric(
        "Implicit reward of answers called good.",
        "mean of beta * sum_t (log pi - log pi_ref)",
        "Rises above 0.",
        "up",
    ),
    "reward/bad": Metric(
        "Implicit reward of answers called bad.",
        "mean of beta * sum_t (log pi - log pi_ref)",
        "Falls below 0.",
        "down",
    ),
    "level": Metric(
        "What an answer is measured against: KTO's z, or BCO's delta.",
        "z = max(0, beta * mean log-ratio of answers behind other prompts)",
        "Small beside the rewards of good and bad answers.",
    ),
    # --- what was given
    "prompts": Metric("Different prompts that were learned from.", "count", "As the file has."),
    "rows": Metric("Answers that were learned from.", "count", "As the file has."),
    "tokens": Metric("Tokens that carried a loss, in one pass.", "sum of the mask", "As expected."),
    "comparisons": Metric("Comparisons that were learned from.", "count", "As the file has."),
    "held_out_pairs": Metric(
        "Comparisons that judge and do not teach.", "count", "The more, the narrower the intervals."
    ),
    "held_out_rows": Metric(
        "Rows that judge and do not teach.", "count", "The more, the narrower the intervals."
    ),
    "held_out_answers": Metric(
        "Answers that judge and do not teach.", "count", "The more, the narrower the intervals."
    ),
    "share_good": Metric(
        "Share of the answers that were called good.", "mean of the labels", "0.2 to 0.8."
    ),
    "loss_held_out": Metric(
        "Cross-entropy of held-out tokens, in nats.", "mean of -log pi(y_t)", "Falls.", "down"
    ),
    "perplexity_held_out": Metric(
        "How surprising held-out tokens are.", "exp(loss_held_out)", "Falls.", "down"
    ),
    # --- held out
    "eval/reward": Metric(
        "Weighted reward of new answers to held-out prompts, the same draws at every look.",
        "mean over answers of sum_k w_k r_k",
        "Rises with objective/scores.",
        "up",
    ),
    "eval/length": Metric(
        "Mean length of new answers to held-out prompts, in tokens.",
        "as answer/length, on held-out prompts",
        "As answer/length.",
    ),
    "eval/finished": Metric(
        "Share of new answers to held-out prompts that ended by themselves.",
        "as answer/finished, on held-out prompts",
        "As answer/finished.",
        "up",
    ),
    "eval/kl": Metric(
        "How far the policy is from its start on held-out prompts, in nats for a whole answer.",
        "mean of sum_t (log pi - log pi_ref)",
        "Some nats; below 0 beyond noise, sampling and scoring disagree.",
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
}
