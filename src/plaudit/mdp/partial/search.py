"""Compiled steps of point-based value iteration over a tree of beliefs.

Every number kept is a proved bound: an α-vector is the value of some plan, a node's upper bound a
Bellman backup or a sawtooth of upper bounds. Looking is incremental: a node remembers how many
α-vectors and points it has compared, and looks at later ones only.
"""

from __future__ import annotations

import numpy as np

from plaudit.mdp.compiled import compiled
from plaudit.mdp.partial.model import Floats
from plaudit.mdp.partial.tables import Ints, Table
from plaudit.mdp.partial.tree import ALPHAS, EDGES, ENTRIES, NODES, PLANS, POINTS, SLOTS, Tree

SAME = 1e-13
"""Beliefs that differ by less in every entry are one node."""


@compiled
def refresh_lower(tree: Tree, node: int) -> None:
    """lower = max_v Σ_s b(s) α_v(s), over the α-vectors that the node has not seen."""
    begin, end = tree.begin[node], tree.begin[node + 1]
    for v in range(tree.alphas_seen[node], tree.used[ALPHAS]):
        total = 0.0
        for k in range(begin, end):
            total += tree.probability[k] * tree.alphas[v, tree.states[k]]
        if total > tree.lower[node]:
            tree.lower[node] = total
            tree.lower_alpha[node] = v
    tree.alphas_seen[node] = tree.used[ALPHAS]


@compiled
def refresh_upper(tree: Tree, node: int) -> None:
    """upper = min(upper, Σ_s b(s) C(s) - gap_p · min_{s: p(s) > 0} b(s)/p(s)) over new points p.

    C: corner values; gap_p = Σ_s p(s) C(s) - v_p. Source: Hauskrecht 2000, section 4.4.2.
    """
    num_points = tree.used[POINTS]
    if tree.points_seen[node] >= num_points:
        return
    begin, end = tree.begin[node], tree.begin[node + 1]
    plane = 0.0
    for k in range(begin, end):
        plane += tree.probability[k] * tree.corner[tree.states[k]]
        tree.dense[tree.states[k]] = tree.probability[k]
    best = max(plane - tree.upper[node], 0.0)
    for p in range(tree.points_seen[node], num_points):
        other = tree.point_node[p]
        if tree.point_of[other] != p or tree.point_gap[p] <= best:
            continue
        least = 1.0
        wanted = best / tree.point_gap[p]
        for k in range(tree.begin[other], tree.begin[other + 1]):
            b = tree.dense[tree.states[k]]
            if b < least * tree.probability[k]:
                least = b / tree.probability[k]
                if least <= wanted:
                    break
        best = max(best, least * tree.point_gap[p])
    for k in range(begin, end):
        tree.dense[tree.states[k]] = 0.0
    tree.upper[node] = min(tree.upper[node], plane - best)
    tree.points_seen[node] = num_points


@compiled
def found_node(tree: Tree, begin: int, end: int) -> int:
    """The node of the belief that lies at entries begin to end, just past the last; maybe new."""
    code = np.int64(1469598103934665603)
    for k in range(begin, end):
        grain = np.int64(np.rint(tree.probability[k] * 68719476736.0))
        code = (code ^ (tree.states[k] * 2654435761 + grain)) * np.int64(1099511628211)
        code ^= code >> 29
    mask = tree.bucket.size - 1
    place = code & mask
    while tree.bucket[place] >= 0:
        node = tree.bucket[place]
        if tree.hashed[node] == code and tree.begin[node + 1] - tree.begin[node] == end - begin:
            same = True
            first = tree.begin[node]
            for k in range(end - begin):
                if (
                    tree.states[first + k] != tree.states[begin + k]
                    or abs(tree.probability[first + k] - tree.probability[begin + k]) > SAME
                ):
                    same = False
                    break
            if same:
                return int(node)
        place = (place + 1) & mask
    node = int(tree.used[NODES])
    tree.used[NODES] = node + 1
    tree.bucket[place] = node
    tree.hashed[node] = code
    tree.begin[node + 1] = end
    tree.used[ENTRIES] = end
    _start_node(tree, node)
    return node


@compiled
def _start_node(tree: Tree, node: int) -> None:
    tree.slot[node] = -1
    tree.point_of[node] = -1
    tree.lower[node] = -np.inf
    tree.lower_alpha[node] = -1
    tree.alphas_seen[node] = 0
    tree.points_seen[node] = 0
    upper = -np.inf
    for a in range(tree.informed.shape[0]):
        upper = max(upper, expectation(tree, node, tree.informed[a]))
    tree.upper[node] = upper
    refresh_lower(tree, node)
    refresh_upper(tree, node)


@compiled
def expectation(tree: Tree, node: int, vector: Floats) -> float:
    """Σ_s b(s) vector(s) at a node's belief."""
    total = 0.0
    for k in range(tree.begin[node], tree.begin[node + 1]):
        total += tree.probability[k] * vector[tree.states[k]]
    return total


@compiled
def open_slot(tree: Tree, node: int) -> bool:
    """Give a node its Q upper bounds from the informed bound; False if there is no room."""
    if tree.slot[node] >= 0:
        return True
    slot = tree.used[SLOTS]
    if slot >= tree.q_upper.shape[0]:
        return False
    tree.used[SLOTS] = slot + 1
    tree.slot[node] = slot
    tree.slot_node[slot] = node
    for a in range(tree.q_upper.shape[1]):
        tree.q_upper[slot, a] = expectation(tree, node, tree.informed[a])
        tree.first_edge[slot, a] = -1
        tree.num_edges[slot, a] = 0
    return True


@compiled
def expand(tree: Tree, table: Table, node: int, a: int) -> bool:
    """The beliefs that follow `node` after action a, as edges; False if there is no room."""
    slot = tree.slot[node]
    if tree.first_edge[slot, a] >= 0:
        return True
    num_touched = _predict(tree, table, node, a)
    room = True
    need_entries, need_edges = 0, 0
    for o in range(table.num_observations):
        if tree.totals[o] > 0.0:
            need_entries += tree.fills[o]
            need_edges += 1
    # one node's entries are written past the last before it is known to be new
    if (
        tree.used[ENTRIES] + need_entries > tree.states.size
        or tree.used[EDGES] + need_edges > tree.child.size
        or tree.used[NODES] + need_edges > tree.slot.size
    ):
        room = False
    else:
        tree.first_edge[slot, a] = tree.used[EDGES]
        for o in range(table.num_observations):
            if tree.totals[o] > 0.0:
                _add_edge(tree, table, slot, a, o, num_touched)
    for i in range(num_touched):
        tree.scratch[tree.touched[i]] = 0.0
    return room


@compiled
def _predict(tree: Tree, table: Table, node: int, a: int) -> int:
    """scratch = Σ_s b(s) T(·|s, a), its states in order in touched; totals, fills by observation."""
    num_touched = 0
    num_actions = table.reward.shape[1]
    for k in range(tree.begin[node], tree.begin[node + 1]):
        row = tree.states[k] * num_actions + a
        for j in range(table.t_ptr[row], table.t_ptr[row + 1]):
            p = tree.probability[k] * table.t_p[j]
            if p > 0.0:
                after = table.t_idx[j]
                if tree.scratch[after] == 0.0:
                    tree.touched[num_touched] = after
                    num_touched += 1
                tree.scratch[after] += p
    tree.touched[:num_touched].sort()
    tree.totals[:] = 0.0
    tree.fills[:] = 0
    for i in range(num_touched):
        after = tree.touched[i]
        arrived = after * num_actions + a
        for j in range(table.o_ptr[arrived], table.o_ptr[arrived + 1]):
            p = tree.scratch[after] * table.o_p[j]
            if p > 0.0:
                tree.totals[table.o_idx[j]] += p
                tree.fills[table.o_idx[j]] += 1
    return num_touched


@compiled
def _add_edge(tree: Tree, table: Table, slot: int, a: int, o: int, num_touched: int) -> None:
    num_actions = table.reward.shape[1]
    begin = tree.used[ENTRIES]
    end = begin
    for i in range(num_touched):
        after = tree.touched[i]
        arrived = after * num_actions + a
        for j in range(table.o_ptr[arrived], table.o_ptr[arrived + 1]):
            if table.o_idx[j] == o:
                p = tree.scratch[after] * table.o_p[j]
                if p > 0.0:
                    tree.states[end] = after
                    tree.probability[end] = p / tree.totals[o]
                    end += 1
    edge = tree.used[EDGES]
    tree.used[EDGES] = edge + 1
    tree.num_edges[slot, a] += 1
    tree.seen[edge] = o
    tree.chance[edge] = tree.totals[o]
    tree.child[edge] = found_node(tree, begin, end)


@compiled
def expand_all(tree: Tree, table: Table, node: int) -> bool:
    """Expand every action that may still be the best; False if there is no room."""
    if not open_slot(tree, node):
        return False
    refresh_lower(tree, node)
    slot = tree.slot[node]
    for a in range(tree.q_upper.shape[1]):
        if tree.q_upper[slot, a] >= tree.lower[node] and not expand(tree, table, node, a):
            return False
    return True


@compiled
def best_upper(tree: Tree, table: Table, node: int) -> int:
    """The action of the greatest Q upper bound, after bringing that bound up to date.

    Q(b, a) ≤ Σ_s b(s) R(s, a) + γ Σ_o P(o|b, a) upper(b_ao). Others are brought up to date only
    while they stand highest, since stale bounds are too high.
    """
    slot = tree.slot[node]
    fresh = -1
    while True:
        a = int(np.argmax(tree.q_upper[slot]))
        if a == fresh or tree.first_edge[slot, a] < 0:
            break
        total = 0.0
        for k in range(tree.begin[node], tree.begin[node + 1]):
            total += tree.probability[k] * table.reward[tree.states[k], a]
        first = tree.first_edge[slot, a]
        for e in range(first, first + tree.num_edges[slot, a]):
            refresh_upper(tree, tree.child[e])
            total += table.gamma * tree.chance[e] * tree.upper[tree.child[e]]
        tree.q_upper[slot, a] = min(tree.q_upper[slot, a], total)
        fresh = a
    return a


@compiled
def back_up_upper(tree: Tree, table: Table, node: int, least: float) -> bool:
    """upper(b) = min(upper(b), max_a Q upper); a fall of over `least` makes a point.

    False if there is no room for the point.
    """
    a = best_upper(tree, table, node)
    value = tree.q_upper[tree.slot[node], a]
    if value >= tree.upper[node]:
        return True
    fall = tree.upper[node] - value
    tree.upper[node] = value
    if tree.begin[node + 1] - tree.begin[node] == 1:
        s = tree.states[tree.begin[node]]
        tree.corner_next[s] = min(tree.corner_next[s], value)
        return True
    if fall <= least:
        return True
    p = tree.used[POINTS]
    if p >= tree.point_node.size:
        return False
    gap = expectation(tree, node, tree.corner) - value
    if gap > 0.0:
        tree.used[POINTS] = p + 1
        tree.point_of[node] = p
        tree.point_node[p] = node
        tree.point_value[p] = value
        tree.point_gap[p] = gap
    return True


@compiled
def back_up_lower(tree: Tree, table: Table, node: int, least: float) -> bool:
    """A new α-vector if some action's backup at the node is above its lower bound by `least`.

    False if there is no room for it.
    """
    refresh_lower(tree, node)
    slot = tree.slot[node]
    best, best_action = tree.lower[node] + least, -1
    for a in range(tree.q_upper.shape[1]):
        first = tree.first_edge[slot, a]
        if first < 0 or tree.q_upper[slot, a] <= best:
            continue
        total = 0.0
        for k in range(tree.begin[node], tree.begin[node + 1]):
            total += tree.probability[k] * table.reward[tree.states[k], a]
        for e in range(first, first + tree.num_edges[slot, a]):
            refresh_lower(tree, tree.child[e])
            total += table.gamma * tree.chance[e] * tree.lower[tree.child[e]]
        if total > best:
            best, best_action = total, a
    if best_action < 0:
        return True
    if tree.used[ALPHAS] >= tree.alphas.shape[0] or tree.used[PLANS] >= tree.plan_action.size:
        return False
    _add_alpha(tree, table, node, best_action)
    refresh_lower(tree, node)
    return True


@compiled
def _add_alpha(tree: Tree, table: Table, node: int, a: int) -> None:
    """α(s) = R(s, a) + γ Σ_s' T(s'|s, a) Σ_o O(o|a, s') α_o(s'), α_o the best at b_ao."""
    num_states, num_actions = table.reward.shape
    slot = tree.slot[node]
    for o in range(table.num_observations):
        tree.fills[o] = tree.lower_alpha[node]  # for what cannot be seen here any plan is sound
    first = tree.first_edge[slot, a]
    for e in range(first, first + tree.num_edges[slot, a]):
        tree.fills[tree.seen[e]] = tree.lower_alpha[tree.child[e]]
    for s in range(num_states):
        total = 0.0
        arrived = s * num_actions + a
        for j in range(table.o_ptr[arrived], table.o_ptr[arrived + 1]):
            total += table.o_p[j] * tree.alphas[tree.fills[table.o_idx[j]], s]
        tree.scratch[s] = total
    v = tree.used[ALPHAS]
    for s in range(num_states):
        total = 0.0
        row = s * num_actions + a
        for k in range(table.t_ptr[row], table.t_ptr[row + 1]):
            total += table.t_p[k] * tree.scratch[table.t_idx[k]]
        tree.alphas[v, s] = table.reward[s, a] + table.gamma * total
    tree.scratch[:] = 0.0
    m = tree.used[PLANS]
    for o in range(table.num_observations):
        tree.plan_next[m, o] = tree.plan[tree.fills[o]]
    tree.plan_action[m] = a
    tree.used[PLANS] = m + 1
    tree.plan[v] = m
    tree.action[v] = a
    tree.used[ALPHAS] = v + 1


@compiled
def trial(
    tree: Tree, table: Table, root: int, width: float, least: float, draws: Floats, path: Ints
) -> tuple[int, bool]:
    """Walk down from `root` where the bounds are too far apart, and back up on the return.

    At depth d the walk goes on while upper - lower > width·γ^-d, by the action of the greatest
    upper bound and the observation that carries most of the excess, or, where there are `draws`
    in [0, 1), one drawn in proportion to the excess. Returns the depth reached and whether there
    was room for all of it.
    Source: Smith & Simmons 2005, sections 2 and 3.
    """
    # a literal 0 for the node would have every kernel compiled twice
    node, depth, room = root, 0, True
    allowed = width
    while depth < path.size:
        room = expand_all(tree, table, node)
        if not room:
            break
        path[depth] = node
        depth += 1
        allowed /= table.gamma if table.gamma > 0.0 else 1e-300
        a = best_upper(tree, table, node)
        if draws.size == 0:
            node = _most_excess(tree, tree.slot[node], a, allowed)
        else:
            node = _drawn_by_excess(tree, tree.slot[node], a, allowed, draws[depth - 1])
        if node < 0:
            break
    for i in range(depth - 1, -1, -1):
        kept = back_up_upper(tree, table, path[i], least)
        kept = back_up_lower(tree, table, path[i], least) and kept
        room = room and kept
    return depth, room


@compiled
def _most_excess(tree: Tree, slot: int, a: int, allowed: float) -> int:
    """The following node with the greatest P(o) · (upper - lower - allowed); -1 if none is above 0."""
    best, chosen = 0.0, -1
    first = tree.first_edge[slot, a]
    for e in range(first, first + tree.num_edges[slot, a]):
        node = tree.child[e]
        refresh_upper(tree, node)
        refresh_lower(tree, node)
        excess = tree.chance[e] * (tree.upper[node] - tree.lower[node] - allowed)
        if excess > best:
            best, chosen = excess, node
    return chosen


@compiled
def _drawn_by_excess(tree: Tree, slot: int, a: int, allowed: float, draw: float) -> int:
    """A following node drawn in proportion to P(o) · (upper - lower - allowed); -1 if none > 0."""
    total = 0.0
    first = tree.first_edge[slot, a]
    last = first + tree.num_edges[slot, a]
    for e in range(first, last):
        node = tree.child[e]
        refresh_upper(tree, node)
        refresh_lower(tree, node)
        total += tree.chance[e] * max(tree.upper[node] - tree.lower[node] - allowed, 0.0)
    left, chosen = draw * total, -1
    for e in range(first, last):
        node = tree.child[e]
        part = tree.chance[e] * max(tree.upper[node] - tree.lower[node] - allowed, 0.0)
        if part > 0.0:
            chosen = node
            if left < part:
                break
            left -= part
    return chosen
