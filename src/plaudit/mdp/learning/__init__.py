"""Learning by samples: worlds met one step at a time, in compiled loops or in an environment."""

from collections.abc import Callable

from plaudit.mdp.learning.algorithms import ALGORITHMS
from plaudit.mdp.learning.batch import (
    Episodes,
    batch_monte_carlo,
    batch_td,
    episodes_from,
    episodes_of,
)
from plaudit.mdp.learning.control_traces import q_lambda, sarsa_lambda, sarsa_lambda_replacing
from plaudit.mdp.learning.dyna import dyna_q, dyna_q_plus
from plaudit.mdp.learning.environment import learn_in
from plaudit.mdp.learning.features import state_aggregation
from plaudit.mdp.learning.gradient_td import gtd2, off_policy_td, tdc
from plaudit.mdp.learning.importance import (
    ordinary_importance_sampling,
    per_decision_importance_sampling,
    weighted_importance_sampling,
)
from plaudit.mdp.learning.learned import (
    LeastSquares,
    LinearPredicted,
    MonteCarloControl,
    Predicted,
    Weighted,
)
from plaudit.mdp.learning.least_squares import lstd
from plaudit.mdp.learning.monte_carlo import every_visit_monte_carlo, first_visit_monte_carlo
from plaudit.mdp.learning.monte_carlo_control import (
    monte_carlo_control,
    monte_carlo_exploring_starts,
    off_policy_monte_carlo_control,
)
from plaudit.mdp.learning.n_step import n_step_q_sigma, n_step_sarsa, n_step_tree_backup
from plaudit.mdp.learning.q_learning import double_q_learning, q_learning
from plaudit.mdp.learning.result import Learned
from plaudit.mdp.learning.sarsa import expected_sarsa, sarsa
from plaudit.mdp.learning.schedules import Schedule, by_visits, constant, linear
from plaudit.mdp.learning.semi_gradient import (
    gradient_monte_carlo,
    linear_true_online_td_lambda,
    semi_gradient_n_step_td,
    semi_gradient_td,
    semi_gradient_td_lambda,
)
from plaudit.mdp.learning.sweeping import prioritized_sweeping
from plaudit.mdp.learning.table import q_table
from plaudit.mdp.learning.temporal_difference import n_step_td, td_prediction
from plaudit.mdp.learning.tiles import TileCoding
from plaudit.mdp.learning.traces import (
    offline_lambda_return,
    td_lambda_accumulating,
    td_lambda_replacing,
    true_online_td_lambda,
)

PREDICTORS: dict[str, Callable[..., Predicted]] = {
    learner.__name__: learner
    for learner in (
        first_visit_monte_carlo,
        every_visit_monte_carlo,
        td_prediction,
        n_step_td,
        td_lambda_accumulating,
        td_lambda_replacing,
        true_online_td_lambda,
        offline_lambda_return,
    )
}
"""The learners of a policy's value, [S], by name."""

__all__ = [
    "ALGORITHMS",
    "PREDICTORS",
    "Episodes",
    "Learned",
    "LeastSquares",
    "LinearPredicted",
    "MonteCarloControl",
    "Predicted",
    "Schedule",
    "TileCoding",
    "Weighted",
    "batch_monte_carlo",
    "batch_td",
    "by_visits",
    "constant",
    "double_q_learning",
    "dyna_q",
    "dyna_q_plus",
    "episodes_from",
    "episodes_of",
    "every_visit_monte_carlo",
    "expected_sarsa",
    "first_visit_monte_carlo",
    "gradient_monte_carlo",
    "gtd2",
    "learn_in",
    "linear",
    "linear_true_online_td_lambda",
    "lstd",
    "monte_carlo_control",
    "monte_carlo_exploring_starts",
    "n_step_q_sigma",
    "n_step_sarsa",
    "n_step_td",
    "n_step_tree_backup",
    "off_policy_monte_carlo_control",
    "off_policy_td",
    "offline_lambda_return",
    "ordinary_importance_sampling",
    "per_decision_importance_sampling",
    "prioritized_sweeping",
    "q_lambda",
    "q_learning",
    "q_table",
    "sarsa",
    "sarsa_lambda",
    "sarsa_lambda_replacing",
    "semi_gradient_n_step_td",
    "semi_gradient_td",
    "semi_gradient_td_lambda",
    "state_aggregation",
    "td_lambda_accumulating",
    "td_lambda_replacing",
    "td_prediction",
    "tdc",
    "true_online_td_lambda",
    "weighted_importance_sampling",
]
