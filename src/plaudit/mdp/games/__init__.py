"""Games: several who choose at once, and what none of them would rather leave."""

from plaudit.mdp.games.bimatrix import (
    Equilibria,
    Equilibrium,
    pure_equilibria,
    support_enumeration,
)
from plaudit.mdp.games.dynamics import (
    Played,
    fictitious_play,
    regret_matching,
    regret_matching_plus,
)
from plaudit.mdp.games.markov import LearnedGame, MarkovSolution, minimax_q, shapley
from plaudit.mdp.games.model import MarkovGame, MatrixGame
from plaudit.mdp.games.zero_sum import ZeroSumSolution, nash_zero_sum

__all__ = [
    "Equilibria",
    "Equilibrium",
    "LearnedGame",
    "MarkovGame",
    "MarkovSolution",
    "MatrixGame",
    "Played",
    "ZeroSumSolution",
    "fictitious_play",
    "minimax_q",
    "nash_zero_sum",
    "pure_equilibria",
    "regret_matching",
    "regret_matching_plus",
    "shapley",
    "support_enumeration",
]
