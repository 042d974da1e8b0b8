"""The glossary's part on agents in Gymnasium worlds."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

CONTROL: Mapping[str, Metric] = {
    # --- episodes
    "rollout/return": Metric(
        "Mean return of the training episodes that ended since the last line, exploration included.",
        "mean over episodes of sum_t r_t, neither discounted nor scaled",
        "Rises; below eval/return where the policy explores.",
        "up",
    ),
    "rollout/given_return": Metric(
        "Mean return of the same episodes by the reward that was given in place of the world's own.",
        "mean over episodes of sum_t r_t with the reward given, neither discounted nor scaled",
        "Rises; rollout/return rises with it where the reward given asks for the same.",
        "up",
    ),
    "rollout/length": Metric(
        "Mean length of the training episodes that ended since the last line, in steps.",
        "mean over episodes of T",
        "Rises where staying alive pays, falls where a goal is to be reached.",
    ),
    "eval/return": Metric(
        "Mean return of whole episodes of the policy without exploration, in worlds of their own.",
        "mean over the same episodes each time of sum_t r_t",
        "Rises and stays; a fall that lasts means that training destroys what it had learned.",
        "up",
    ),
    "eval/return_low": Metric(
        "Lower end of the interval of eval/return.",
        "2.5th percentile of the mean over bootstrap resamples of the episodes",
        "Near eval/return; a wide interval asks for more eval_episodes.",
        "up",
    ),
    "eval/return_high": Metric(
        "Upper end of the interval of eval/return.",
        "97.5th percentile of the mean over bootstrap resamples of the episodes",
        "Near eval/return.",
        "up",
    ),
    "eval/length": Metric(
        "Mean length of the episodes of the evaluation, in steps.",
        "mean over episodes of T",
        "At the time limit, every episode was cut off.",
    ),
    "eval/length_min": Metric(
        "Length of the shortest judged episode, in steps.",
        "min over episodes of T",
        "Far below the mean, some beginnings end the episode at once.",
    ),
    "eval/length_max": Metric(
        "Length of the longest judged episode, in steps.", "max over episodes of T", "As expected."
    ),
    "eval/return_min": Metric(
        "Return of the worst judged episode.",
        "min over episodes of sum_t r_t",
        "Near the mean for a policy that can be relied on.",
        "up",
    ),
    "eval/return_max": Metric(
        "Return of the best judged episode.",
        "max over episodes of sum_t r_t",
        "Near the mean.",
        "up",
    ),
    "eval/return_median": Metric(
        "Median return of the judged episodes.",
        "median over episodes of sum_t r_t",
        "Far from eval/return, a few episodes decide the mean.",
        "up",
    ),
    "eval/truncated": Metric(
        "Share of the judged episodes that the time limit cut off.",
        "mean over episodes of 1[truncated, not terminated]",
        "1 where an episode can only fail early (CartPole), 0 where a goal ends it.",
    ),
    "eval/best": Metric(
        "The best evaluation of the run so far, whose agent is kept in checkpoints/best.",
        "max over evaluations of eval/return",
        "Not far above the last eval/return.",
        "up",
    ),
    # --- on-policy
    "loss/policy": Metric(
        "The policy's loss; its sign and size mean little, as advantages are centred.",
        "ppo: -min(ratio A, clip(ratio, 1 - c, 1 + c) A); a2c, reinforce: -log pi A; means",
        "Small and around 0; it need not fall.",
    ),
    "loss/value": Metric(
        "Error of the critic's estimate of the return.",
        "mean of (V - R)^2 / 2",
        "Falls at first, then follows the size and spread of the returns.",
        "down",
    ),
    "policy/entropy": Metric(
        "How undecided the policy is, in nats (a density's entropy for continuous actions).",
        "mean over states of -sum_a pi(a) log pi(a)",
        "Begins at log(number of actions) and falls slowly; near 0 the policy explores no more.",
    ),
    "policy/approxkl": Metric(
        "How far the updates moved the policy from the one that acted.",
        "mean of r - 1 - log r, r = pi / pi_old",
        "0.001 to 0.03; far above, lower lr or num_epochs, or set max_kl.",
    ),
    "policy/kl": Metric(
        "How far the updates moved the policy from the one that acted, exactly.",
        "mean over states of KL(pi_old || pi), of the whole distribution",
        "Near kl_target; kl_coef doubles or halves to bring it there.",
    ),
    "policy/clipfrac": Metric(
        "Share of the steps whose probability ratio left the clip range.",
        "mean of 1[|pi / pi_old - 1| > clip]",
        "0 to 0.3.",
    ),
    # --- off-policy
    "loss/q": Metric(
        "Error of the action values against their targets.",
        "mean of the Huber loss of Q(s, a) - (r + gamma max Q'(s', .)), n-step where asked for",
        "Follows the size of the values; steady growth with q/mean means divergence.",
    ),
    "q/mean": Metric(
        "Mean estimated value of the actions in the batch.",
        "mean of Q(s, a) over the batch",
        "Approaches the discounted return; far above what any episode pays, it overestimates.",
    ),
    "epsilon": Metric(
        "Share of actions drawn at random.",
        "the config's schedule",
        "Falls from 1 to the final value, then stays.",
    ),
    "loss/critic": Metric(
        "Error of the critics against their common target.",
        "sum over critics of mean (Q(s, a) - y)^2 / 2",
        "Follows the size of the values; steady growth means divergence.",
    ),
    "loss/actor": Metric(
        "What the actor lowers: the negative value of its actions, for SAC with its entropy's price.",
        "sac: mean of alpha log pi(a|s) - min Q(s, a); td3: -mean Q_1(s, pi(s))",
        "Falls as values rise.",
    ),
    "sac/alpha": Metric(
        "The temperature: what a nat of entropy is worth in reward.",
        "learned so that the mean of -log pi reaches the target entropy",
        "Falls from 1 and settles; growth means that the policy is less random than wanted.",
    ),
}
