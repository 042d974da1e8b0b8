"""Finite worlds: processes, decisions, partial sight and games, solved exactly or by samples."""

from plaudit.mdp.games import MarkovGame, MatrixGame
from plaudit.mdp.model import MDP, MRP
from plaudit.mdp.partial.model import POMDP

__all__ = ["MDP", "MRP", "POMDP", "MarkovGame", "MatrixGame"]
