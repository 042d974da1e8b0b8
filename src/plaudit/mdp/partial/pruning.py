"""Housekeeping of a search: α-vectors and points that no longer serve are dropped.

What is dropped only loosens a bound somewhere; what stays is as true as before.
"""

from __future__ import annotations

import numpy as np

from plaudit.mdp.compiled import compiled
from plaudit.mdp.partial.model import Floats
from plaudit.mdp.partial.search import expectation, refresh_lower
from plaudit.mdp.partial.tree import ALPHAS, NODES, POINTS, SLOTS, Tree


@compiled
def move_corners(tree: Tree) -> None:
    """Take over the corner values found since, and what each point lies below them."""
    tree.corner[:] = tree.corner_next
    for p in range(tree.used[POINTS]):
        node = tree.point_node[p]
        if tree.point_of[node] == p:
            tree.point_gap[p] = expectation(tree, node, tree.corner) - tree.point_value[p]


@compiled
def drop_points(tree: Tree) -> None:
    """Forget points that were replaced or lie above the corners' plane; nodes keep what they saw."""
    kept = 0
    before = np.empty(tree.used[POINTS] + 1, np.int64)
    for p in range(tree.used[POINTS]):
        before[p] = kept
        node = tree.point_node[p]
        if tree.point_of[node] == p:
            if tree.point_gap[p] <= 0.0:
                tree.point_of[node] = -1
                continue
            tree.point_of[node] = kept
            tree.point_node[kept] = node
            tree.point_value[kept] = tree.point_value[p]
            tree.point_gap[kept] = tree.point_gap[p]
            kept += 1
    before[tree.used[POINTS]] = kept
    for node in range(tree.used[NODES]):
        tree.points_seen[node] = before[tree.points_seen[node]]
    tree.used[POINTS] = kept


@compiled
def drop_alphas(tree: Tree, root: int) -> None:
    """Keep the α-vectors that are best at the root or an expanded belief and below no other everywhere."""
    num = tree.used[ALPHAS]
    keep = np.zeros(num, np.bool_)
    refresh_lower(tree, root)
    keep[tree.lower_alpha[root]] = True  # also where the root was never expanded
    for slot in range(tree.used[SLOTS]):
        node = tree.slot_node[slot]
        refresh_lower(tree, node)
        keep[tree.lower_alpha[node]] = True
    for v in range(num):
        for w in range(num):
            if keep[v] and keep[w] and w != v and _covers(tree.alphas[w], tree.alphas[v]):
                keep[v] = False
    place = np.full(num + 1, -1, np.int64)
    before = np.zeros(num + 1, np.int64)
    kept = 0
    for v in range(num):
        before[v] = kept
        if keep[v]:
            place[v] = kept
            if kept != v:
                for s in range(tree.alphas.shape[1]):
                    tree.alphas[kept, s] = tree.alphas[v, s]
                tree.action[kept] = tree.action[v]
                tree.plan[kept] = tree.plan[v]
            kept += 1
    before[num] = kept
    tree.used[ALPHAS] = kept
    for node in range(tree.used[NODES]):
        tree.alphas_seen[node] = before[tree.alphas_seen[node]]
        if tree.lower_alpha[node] >= 0:
            tree.lower_alpha[node] = place[tree.lower_alpha[node]]
        if tree.lower_alpha[node] < 0:
            tree.lower[node] = -np.inf
            tree.alphas_seen[node] = 0


@compiled
def _covers(high: Floats, low: Floats) -> bool:
    lower_anywhere = False
    for s in range(low.size):
        if high[s] < low[s]:
            lower_anywhere = True
            break
    return not lower_anywhere
