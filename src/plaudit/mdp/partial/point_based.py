"""Point-based value iteration with certified bounds from both sides.

The lower bound is a set of α-vectors, each the value of a plan; the upper bound a sawtooth over
beliefs under the fast informed bound. Trials walk from the initial belief to where the bounds are
far apart for their depth, and back both up on the return, as in HSVI2; vectors that are the best at
no expanded belief are dropped, as in SARSOP.

Sources: Smith & Simmons 2005 (HSVI2); Kurniawati, Hsu & Lee 2008 (SARSOP).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.checks import check_distribution
from plaudit.mdp.partial.bounds import EPS, blind_bound, discounted, fast_informed_bound
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.search import (
    SAME,
    drop_alphas,
    drop_points,
    found_node,
    move_corners,
    refresh_lower,
    trial,
)
from plaudit.mdp.partial.tables import Ints, Table, table_of
from plaudit.mdp.partial.tree import (
    ALPHAS,
    ENTRIES,
    NODES,
    POINTS,
    SLOTS,
    Tree,
    empty_tree,
    grown,
    room_for,
)
from plaudit.records.errors import UserError

MAX_DEPTH = 1000
SHRINK = (0.5, 0.5, 0.02)
LEAST = 0.01


def _initial_tree(pomdp, tol):
    informed = fast_informed_bound(pomdp, tol=tol)
    lower = blind_bound(pomdp)
    tree = empty_tree(pomdp.num_states, pomdp.num_observations, lower, np.arange(len(lower)), informed)
    support = np.flatnonzero(pomdp.initial)
    tree.states[: support.size] = support
    tree.probability[: support.size] = pomdp.initial[support]
    found_node(tree, 0, support.size)
    return tree


def solve_pomdp(pomdp, tol=1e-6, *, seconds=None, seed=0, num_trials=None, verbose=False, shrink=SHRINK, drawn=(), least_f=LEAST):
    begun = time.perf_counter()
    table = table_of(pomdp)
    tree = _initial_tree(pomdp, min(tol,1e-3))
    path = np.empty(MAX_DEPTH, np.int64); rng=np.random.default_rng(seed); none=np.empty(0)
    trace = []
    kept_alphas = int(tree.count[ALPHAS]); kept_points = 0
    i = 0
    last=0
    while True:
        refresh_lower(tree, 0)
        low, high = tree.lower[0], tree.upper[0]
        trace.append((time.perf_counter() - begun, low, high))
        if high - low <= tol: break
        if seconds is not None and trace[-1][0] >= seconds: break
        if num_trials is not None and i >= num_trials: break
        width = max(tol, (shrink[i % len(shrink)]) * (high - low))
        least = least_f * width * (1 - pomdp.gamma)
        depth, room = trial(tree, table, width, least, none if i%len(shrink) not in drawn else rng.random(MAX_DEPTH), path)
        i += 1
        if not room:
            room_now = room_for(tree)
            tight = [k for k, r in room_now.items() if tree.count[k] > 0.5 * r]
            if not tight:
                tight = [max(room_now, key=lambda k: tree.count[k] / room_now[k])]
            tree = grown(tree, tight)
        if tree.count[ALPHAS] > 1.3 * kept_alphas + 50:
            drop_alphas(tree)
            kept_alphas = int(tree.count[ALPHAS])
        if (tree.corner_next < tree.corner).any():
            move_corners(tree)
        if tree.count[POINTS] > 1.5 * kept_points + 100:
            drop_points(tree); kept_points = int(tree.count[POINTS])
        if verbose and trace[-1][0] - last > verbose:
            last = trace[-1][0]
            print(f"{last:.2f}s trial {i} depth {depth} [{low:.5f}, {high:.5f}] counts {tree.count}", flush=True)
    return tree, trace, i
