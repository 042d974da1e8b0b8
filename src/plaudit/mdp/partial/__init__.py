"""Worlds that are only partly seen: beliefs, bounds, point-based planning, controllers, files."""

from plaudit.mdp.partial.cassandra import parse_pomdp, pomdp_text, read_pomdp, write_pomdp
from plaudit.mdp.partial.model import POMDP

__all__ = ["POMDP", "parse_pomdp", "pomdp_text", "read_pomdp", "write_pomdp"]
