"""Worlds that are only partly seen: beliefs, bounds, point-based planning, controllers, files."""

from plaudit.mdp.partial.belief import belief_update, expanded_value
from plaudit.mdp.partial.bounds import blind_bound, fast_informed_bound, qmdp_bound
from plaudit.mdp.partial.cassandra import parse_pomdp, pomdp_text, read_pomdp, write_pomdp
from plaudit.mdp.partial.controller import Controller, Simulated, plan_graph, policy_graph, simulate
from plaudit.mdp.partial.exact import AlphaSet, finite_horizon_alphas
from plaudit.mdp.partial.model import POMDP
from plaudit.mdp.partial.point_based import PartialSolution, solve_pomdp

__all__ = [
    "POMDP",
    "AlphaSet",
    "Controller",
    "PartialSolution",
    "Simulated",
    "belief_update",
    "blind_bound",
    "expanded_value",
    "fast_informed_bound",
    "finite_horizon_alphas",
    "parse_pomdp",
    "plan_graph",
    "policy_graph",
    "pomdp_text",
    "qmdp_bound",
    "read_pomdp",
    "simulate",
    "solve_pomdp",
    "write_pomdp",
]
