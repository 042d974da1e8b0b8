"""What planning and learning in finite worlds log."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

FINITE: Mapping[str, Metric] = {
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
    "planner": Metric(
        "The planner that solved the world: the one that auto took, where method is auto.",
        "a name of `plaudit ls`",
        "policy_iteration for small worlds; for large ones what mixes fast takes sweeps of all states.",
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
}
