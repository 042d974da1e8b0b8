"""The learners of control by name."""

from __future__ import annotations

from collections.abc import Callable

from plaudit.mdp.learning.control_traces import q_lambda, sarsa_lambda, sarsa_lambda_replacing
from plaudit.mdp.learning.dyna import dyna_q, dyna_q_plus
from plaudit.mdp.learning.n_step import n_step_q_sigma, n_step_sarsa, n_step_tree_backup
from plaudit.mdp.learning.q_learning import double_q_learning, q_learning
from plaudit.mdp.learning.result import Learned
from plaudit.mdp.learning.sarsa import expected_sarsa, sarsa
from plaudit.mdp.learning.sweeping import prioritized_sweeping

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
