"""Finite worlds: Markov reward and decision processes, solved exactly and learned by samples."""

from plaudit.mdp.model import MDP, MRP

__all__ = ["MDP", "MRP"]
