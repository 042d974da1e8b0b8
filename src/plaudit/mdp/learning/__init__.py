"""Learning by samples: worlds met one step at a time, in compiled loops or in an environment."""

from collections.abc import Callable

from plaudit.mdp.learning.control_traces import q_lambda, sarsa_lambda, sarsa_lambda_replacing
from plaudit.mdp.learning.dyna import dyna_q, dyna_q_plus
from plaudit.mdp.learning.environment import learn_in
from plaudit.mdp.learning.n_step import n_step_q_sigma, n_step_sarsa, n_step_tree_backup
from plaudit.mdp.learning.q_learning import double_q_learning, q_learning
from plaudit.mdp.learning.result import Learned
from plaudit.mdp.learning.sarsa import expected_sarsa, sarsa
from plaudit.mdp.learning.schedules import Schedule, by_visits, constant, linear
from plaudit.mdp.learning.sweeping import prioritized_sweeping
from plaudit.mdp.learning.table import q_table

ALGORITHMS: dict[str, Callable[..., Learned]] = {
    learner.__name__: learner
    for learner in (
        q_learning,
        double_q_learning,
        sarsa,
        expected_sarsa,
        sarsa_lambda,
        sarsa_lambda_replacing,
        q_lambda,
        n_step_sarsa,
        n_step_tree_backup,
        n_step_q_sigma,
        dyna_q,
        dyna_q_plus,
        prioritized_sweeping,
    )
}
"""The learners of control by name."""

__all__ = [
    "ALGORITHMS",
    "Learned",
    "Schedule",
    "by_visits",
    "constant",
    "double_q_learning",
    "dyna_q",
    "dyna_q_plus",
    "expected_sarsa",
    "learn_in",
    "linear",
    "n_step_q_sigma",
    "n_step_sarsa",
    "n_step_tree_backup",
    "prioritized_sweeping",
    "q_lambda",
    "q_learning",
    "q_table",
    "sarsa",
    "sarsa_lambda",
    "sarsa_lambda_replacing",
]
