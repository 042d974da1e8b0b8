"""Planning: worlds whose rules are known, solved with a proof of how exact the answer is."""

from plaudit.mdp.planning.average import AverageSolution, relative_value_iteration
from plaudit.mdp.planning.evaluation import evaluate
from plaudit.mdp.planning.horizon import FiniteHorizon, finite_horizon
from plaudit.mdp.planning.programme import Programme, linear_programme
from plaudit.mdp.planning.solution import Solution
from plaudit.mdp.planning.solve import METHODS, solve

__all__ = [
    "METHODS",
    "AverageSolution",
    "FiniteHorizon",
    "Programme",
    "Solution",
    "evaluate",
    "finite_horizon",
    "linear_programme",
    "relative_value_iteration",
    "solve",
]
