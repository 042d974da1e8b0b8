"""Learning by samples: worlds met one step at a time, in compiled loops or in an environment."""

from plaudit.mdp.learning.q_learning import double_q_learning, q_learning
from plaudit.mdp.learning.result import Learned
from plaudit.mdp.learning.sarsa import expected_sarsa, sarsa
from plaudit.mdp.learning.schedules import Schedule, by_visits, constant, linear

__all__ = [
    "Learned",
    "Schedule",
    "by_visits",
    "constant",
    "double_q_learning",
    "expected_sarsa",
    "linear",
    "q_learning",
    "sarsa",
]
