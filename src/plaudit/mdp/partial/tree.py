"""The beliefs that a search has met, in growing flat arrays that compiled kernels fill.

A belief is a node, kept sparse (`begin`, `states`, `probabilities`), met once however it is reached
(a hash table finds it again), with its bounds. An expanded node has a slot with Q upper bounds and,
for each action, its edges: observation, probability and the node that follows. Beside the tree
stand the α-vectors (lower bound) and the points of the sawtooth (upper bound).

Kernels never allocate: they answer that room is short, and `grow` doubles what is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.partial.model import Floats
from plaudit.mdp.partial.tables import Ints

NODES, ENTRIES, SLOTS, EDGES, ALPHAS, POINTS, PLANS = range(7)
"""Places of the counters in `used`."""


class Tree(NamedTuple):
    """Nodes n, belief entries k, slots i, edges e, α-vectors v, points p, plans m; `used` counts.

    begin [n + 1] into states, probability; slot [n], -1 while not expanded;
    lower [n] and the α that gives it (-1 unknown), how many α and points each node has looked at;
    q_upper [i, A]; first_edge, num_edges [i, A] (-1: not expanded) into seen, chance, child;
    alphas [v, S] with action [v] and plan [v]: plan m does plan_action [m] and, on observation o,
    goes on as the earlier plan_next [m, o]; plans are kept when their vectors are dropped; point_node, point_value, point_gap [p], the latest of a node in
    point_of [n]; corner [S]: upper bounds where the state is known, corner_next those to come.
    """

    used: Ints
    begin: Ints
    states: NDArray[np.int32]
    probability: Floats
    hashed: Ints
    bucket: Ints
    slot: Ints
    lower: Floats
    lower_alpha: Ints
    alphas_seen: Ints
    upper: Floats
    points_seen: Ints
    point_of: Ints
    slot_node: Ints
    q_upper: Floats
    first_edge: Ints
    num_edges: Ints
    seen: Ints
    chance: Floats
    child: Ints
    alphas: Floats
    action: Ints
    plan: Ints
    plan_action: Ints
    plan_next: Ints
    point_node: Ints
    point_value: Floats
    point_gap: Floats
    corner: Floats
    corner_next: Floats
    informed: Floats
    dense: Floats
    scratch: Floats
    touched: Ints
    totals: Floats
    fills: Ints


BY_NODE = (
    "begin",
    "hashed",
    "slot",
    "lower",
    "lower_alpha",
    "alphas_seen",
    "upper",
    "points_seen",
    "point_of",
)
GROWING: dict[int, tuple[str, ...]] = {
    NODES: BY_NODE,
    ENTRIES: ("states", "probability"),
    SLOTS: ("slot_node", "q_upper", "first_edge", "num_edges"),
    EDGES: ("seen", "chance", "child"),
    ALPHAS: ("alphas", "action", "plan"),
    PLANS: ("plan_action", "plan_next"),
    POINTS: ("point_node", "point_value", "point_gap"),
}


def empty_tree(
    num_states: int, num_observations: int, alphas: Floats, action: Ints, informed: Floats
) -> Tree:
    """No beliefs yet; `alphas` [N, S] hold for doing `action` [N] for ever, `informed` [A, S]
    are upper bounds."""
    num_actions = informed.shape[0]
    nodes, slots = 1024, 256
    edges, entries = 2048, max(8 * num_states, 4096)
    room = max(2 * len(alphas), 32)
    vectors, taken = np.empty((room, num_states)), np.zeros(room, np.int64)
    vectors[: len(alphas)], taken[: len(alphas)] = alphas, action
    used = np.zeros(7, np.int64)
    used[ALPHAS] = used[PLANS] = len(alphas)
    following = np.zeros((room, num_observations), np.int64)
    following[: len(alphas)] = np.arange(len(alphas))[:, None]  # the first plans never change
    corner = informed.max(axis=0)
    return Tree(
        used=used,
        begin=np.zeros(nodes + 1, np.int64),
        states=np.empty(entries, np.int32),
        probability=np.empty(entries),
        hashed=np.empty(nodes, np.int64),
        bucket=np.full(4 * nodes, -1, np.int64),
        slot=np.full(nodes, -1, np.int64),
        lower=np.empty(nodes),
        lower_alpha=np.empty(nodes, np.int64),
        alphas_seen=np.zeros(nodes, np.int64),
        upper=np.empty(nodes),
        points_seen=np.zeros(nodes, np.int64),
        point_of=np.full(nodes, -1, np.int64),
        slot_node=np.empty(slots, np.int64),
        q_upper=np.empty((slots, num_actions)),
        first_edge=np.full((slots, num_actions), -1, np.int64),
        num_edges=np.zeros((slots, num_actions), np.int64),
        seen=np.empty(edges, np.int64),
        chance=np.empty(edges),
        child=np.empty(edges, np.int64),
        alphas=vectors,
        action=taken,
        plan=np.arange(room),
        plan_action=taken.copy(),
        plan_next=following,
        point_node=np.empty(256, np.int64),
        point_value=np.empty(256),
        point_gap=np.empty(256),
        corner=corner,
        corner_next=corner.copy(),
        informed=informed,
        dense=np.zeros(num_states),
        scratch=np.zeros(num_states),
        touched=np.empty(num_states, np.int64),
        totals=np.zeros(num_observations),
        fills=np.zeros(num_observations, np.int64),
    )


def room_for(tree: Tree) -> dict[int, int]:
    """How many of each kind the arrays hold."""
    return {kind: len(getattr(tree, names[-1])) for kind, names in GROWING.items()}


def grown(tree: Tree, kinds: list[int]) -> Tree:
    """The same tree with twice the room for these kinds."""
    changed: dict[str, object] = {}
    for kind in kinds:
        for name in GROWING[kind]:
            changed[name] = _doubled(getattr(tree, name))
    if NODES in kinds:
        changed["bucket"] = np.full(2 * tree.bucket.size, -1, np.int64)
    bigger = tree._replace(**changed)  # type: ignore[arg-type]
    if NODES in kinds:
        _rehash(bigger)
    return bigger


def _doubled(old: Floats) -> Floats:
    new = np.empty((2 * old.shape[0], *old.shape[1:]), old.dtype)
    new[: old.shape[0]] = old
    return new


def _rehash(tree: Tree) -> None:
    mask = tree.bucket.size - 1
    for node in range(int(tree.used[NODES])):
        place = int(tree.hashed[node]) & mask
        while tree.bucket[place] >= 0:
            place = (place + 1) & mask
        tree.bucket[place] = node
