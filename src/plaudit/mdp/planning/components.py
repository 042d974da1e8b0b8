"""End components: sets of states with actions that never leave them, and what γ = 1 makes of them.

Where nothing is discounted, a set in which one may move for ever without being paid makes Bellman's
equation blind: any value of the set solves it, and the greedy policy may dance there for ever. Such
sets are therefore drawn together before solving, and afterwards every state of a set is led to its
best way out. Source: de Alfaro 1997; Haddad & Monmege 2018 (interval iteration).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from plaudit.mdp.compiled import compiled
from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import Floats, Index, Ints, Rows
from plaudit.records.errors import UserError

Booleans = NDArray[np.bool_]


def end_components(rows: Rows, allowed: Booleans) -> tuple[Ints, Booleans]:
    """Maximal end components over the allowed actions [S, A]: (label [S], internal [S, A]).

    label is -1 outside of every component; `internal` marks the actions that stay in theirs.
    """
    num_states, num_actions = allowed.shape
    internal = allowed.ravel().copy()
    counts = np.diff(rows.indptr)
    internal &= counts > 0
    row_of = np.repeat(np.arange(counts.size), counts)
    real = rows.data > 0
    row_of, target = row_of[real], rows.indices[real].astype(np.int64)
    while True:
        live = internal[row_of]
        graph = sparse.csr_array(
            (np.ones(int(live.sum()), np.int8), (row_of[live] // num_actions, target[live])),
            shape=(num_states, num_states),
        )
        _, label = csgraph.connected_components(graph, directed=True, connection="strong")
        leaving = live & (label[row_of // num_actions] != label[target])
        if not leaving.any():
            break
        internal[row_of[leaving]] = False
    inside = internal.reshape(allowed.shape).any(axis=1)
    # A component in which some state lost all its actions was left by an action that is gone too.
    return np.where(inside, label, -1), internal.reshape(allowed.shape)


@dataclass(frozen=True)
class Drawn:
    """A world at γ = 1 with each unpaid component drawn together; one more state, the end.

    Component members 1..m become a line: the first stands for all of them, member i offers its
    ways out and "on to member i + 1", and the last, instead, "stay for good": the end, worth 0.
    """

    rows: Rows
    label: Ints
    internal: Booleans
    first: Ints
    onward: Ints
    """[S] the action slot that leads on along the line, -1 for states of no component."""

    @property
    def end(self) -> int:
        """The number of the added state."""
        return int(self.first.size)


def drawn_together(mdp: MDP, rows: Rows) -> Drawn:
    """The world whose Bellman equation has one solution if every state can end."""
    num_states, num_actions = rows.reward.shape
    label, internal = end_components(rows, mdp.reward == 0)
    first = np.arange(num_states)
    lines = _members(label)
    inside = np.concatenate([np.empty(0, np.int64), *lines])
    for line in lines:
        first[line] = line[0]
    following = np.concatenate(
        [np.empty(0, np.int64), *(np.append(m[1:], num_states) for m in lines)]
    )
    onward = np.full(num_states, -1)
    onward[inside] = internal[inside].argmax(axis=1)
    slot = inside * num_actions + onward[inside]

    counts = np.diff(rows.indptr).astype(np.int64)
    gone = internal.ravel()
    new_counts = np.where(gone, 0, counts)
    new_counts[slot] = 1
    new_counts = np.append(new_counts, [1] + [0] * (num_actions - 1))  # the end stays
    indptr = np.concatenate([[0], np.cumsum(new_counts)])
    indices = np.empty(indptr[-1], np.uint32)
    data = np.ones(indptr[-1])
    keep = np.repeat(~gone, counts)
    kept_rows = np.repeat(np.arange(counts.size), counts)[keep]
    offset = np.arange(rows.data.size)[keep] - rows.indptr[kept_rows]
    place = indptr[kept_rows] + offset
    indices[place] = first[rows.indices[keep]]
    data[place] = rows.data[keep]
    indices[indptr[slot]] = following
    indices[-1] = num_states
    reward = np.where(internal, -np.inf, rows.reward)
    reward[inside, onward[inside]] = 0.0
    last = np.full((1, num_actions), -np.inf)
    last[0, 0] = 0.0
    reward = np.concatenate([reward, last])
    new_rows = replace(rows, indptr=indptr, indices=indices, data=data, reward=reward)
    return Drawn(new_rows, label, internal, first, onward)


def surely_ending(drawn: Drawn) -> tuple[Booleans, Ints]:
    """[S+1]: a policy reaches the end with probability one; and the actions of such a policy."""
    rows = drawn.rows
    counts = np.diff(rows.indptr)
    row_of = np.repeat(np.arange(counts.size), counts)
    into = sparse.csc_array(
        (np.ones(row_of.size, np.int8), (row_of, rows.indices.astype(np.int64))),
        shape=(counts.size, rows.reward.shape[0]),
    )
    return _surely_ending(
        rows.indptr, rows.indices, rows.data, rows.reward, into.indptr, into.indices, drawn.end
    )


@compiled
def _surely_ending(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    into_indptr: Ints,
    into: Ints,
    end: int,
) -> tuple[Booleans, Ints]:
    """Greatest set X from which the end can be reached by actions that stay in X."""
    num_states, num_actions = reward.shape
    inside = np.ones(num_states, np.bool_)
    action = np.zeros(num_states, np.int64)
    queue = np.empty(num_states, np.int64)
    while True:
        reached = np.zeros(num_states, np.bool_)
        reached[end] = True
        queue[0] = end
        head, tail = 0, 1
        while head < tail:
            s = queue[head]
            head += 1
            for i in range(into_indptr[s], into_indptr[s + 1]):
                row = into[i]
                origin = row // num_actions
                if reached[origin] or reward[origin, row - origin * num_actions] == -np.inf:
                    continue
                stays, leads = True, False
                for k in range(indptr[row], indptr[row + 1]):
                    if data[k] > 0.0 and not inside[indices[k]]:
                        stays = False
                    if data[k] > 0.0 and indices[k] == s:
                        leads = True
                if stays and leads:
                    reached[origin] = True
                    action[origin] = row - origin * num_actions
                    queue[tail] = origin
                    tail += 1
        same = True
        for s in range(num_states):
            if inside[s] and not reached[s]:
                same = False
            inside[s] = reached[s]
        if same:
            return inside, action


def lifted_policy(drawn: Drawn, action: Ints, mdp: MDP) -> Ints:
    """The policy of the world from that of the drawn one: in a component, to its way out."""
    policy = action[: drawn.end].copy()
    for members in _members(drawn.label):
        exits = members[action[members] != drawn.onward[members]]
        for s in members:
            policy[s] = drawn.onward[s]  # stay: any action that remains inside
        if exits.size == 0:
            continue
        out = int(exits[0])  # the line is walked in order: its first way out is the one taken
        policy[out] = action[out]
        _lead_to(out, members, drawn, mdp, policy)
    return policy


def _members(label: Ints) -> list[Ints]:
    """The states of each component, in rising order."""
    inside = np.flatnonzero(label >= 0)
    inside = inside[np.argsort(label[inside], kind="stable")]
    return np.split(inside, np.flatnonzero(np.diff(label[inside])) + 1) if inside.size else []


def _lead_to(exit_state: int, members: Ints, drawn: Drawn, mdp: MDP, policy: Ints) -> None:
    """Give the other members inner actions that bring them nearer to the exit with some chance."""
    num_actions = mdp.num_actions
    p = mdp.transition
    into: dict[int, list[tuple[int, int]]] = {}
    for member in members:
        for action in np.flatnonzero(drawn.internal[member]):
            row = member * num_actions + action
            part = slice(p.indptr[row], p.indptr[row + 1])
            for target in p.indices[part][p.data[part] > 0]:
                into.setdefault(int(target), []).append((int(member), int(action)))
    reached, ring = {exit_state}, [exit_state]
    while ring:
        following: list[int] = []
        for inner in ring:
            for s, a in into.get(inner, []):
                if s not in reached:
                    reached.add(s)
                    policy[s] = a
                    following.append(s)
        ring = following


def refuse_unbounded(drawn: Drawn, mdp: MDP, ending: Booleans) -> None:
    """UserError unless every state can surely end and none can be paid for ever."""
    stuck = np.flatnonzero(~ending)
    if stuck.size:
        raise UserError(
            f"gamma = 1: no policy surely ends from state {_said(mdp, int(stuck[0]))}, so its value has no "
            "bound; use gamma < 1 or relative_value_iteration (average reward)"
        )
    rows = drawn.rows
    open_actions = ~np.isneginf(rows.reward)
    open_actions[drawn.end] = False
    label, internal = end_components(rows, open_actions)
    for members in _members(label):
        if (rows.reward[members][internal[members]] <= 0).all():
            continue  # every round costs: nobody stays
        if not _loses(rows, members, internal):
            raise UserError(
                f"gamma = 1: a policy can stay near state {_said(mdp, int(members[0]))} for ever without "
                "losing reward, so its value has no bound or no limit; use gamma < 1 or "
                "relative_value_iteration (average reward)"
            )


def _loses(rows: Rows, members: Ints, internal: Booleans) -> bool:
    """True if no way of staying among the members earns zero or more a step."""
    value = {int(s): 0.0 for s in members}
    num_actions = rows.reward.shape[1]
    for _ in range(10_000):  # V ← ½V + ½TV: its change bounds half the gain, periodic or not
        new = {}
        for s in value:
            best = -np.inf
            for a in np.flatnonzero(internal[s]):
                row = s * num_actions + a
                part = slice(rows.indptr[row], rows.indptr[row + 1])
                ahead = sum(
                    p * value[int(t)]
                    for p, t in zip(rows.data[part], rows.indices[part], strict=True)
                )
                best = max(best, float(rows.reward[s, a]) + ahead)
            new[s] = 0.5 * value[s] + 0.5 * best
        change = np.array([new[s] - value[s] for s in value])
        value = new
        if change.max() < 0:
            return True
        if change.min() >= 0:
            return False
    return False


def _said(mdp: MDP, s: int) -> str:
    return f"{s} ({mdp.states[s]})" if mdp.states is not None and s < len(mdp.states) else str(s)
