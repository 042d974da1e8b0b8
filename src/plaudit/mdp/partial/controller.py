"""Policies that can be carried about: finite-state controllers, their exact value, simulation.

A controller needs no belief: it has an action for each of its nodes, and for each observation the
node that follows. Its value is one linear system, so it proves what a set of α-vectors promises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.checks import check_distribution, frozen
from plaudit.mdp.compiled import compiled
from plaudit.mdp.model import MRP
from plaudit.mdp.partial.belief import _joint
from plaudit.mdp.partial.exact import AlphaSet
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.point_based import PartialSolution
from plaudit.mdp.partial.tables import Ints, Table, table_of
from plaudit.mdp.planning import evaluate
from plaudit.records.errors import UserError

NORMAL_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

SETTLED = 1e-9
"""Episodes are followed until what is left, at most, is this share of the greatest return."""


@dataclass(frozen=True, eq=False, init=False)
class Controller:
    """A finite-state controller: `actions` [N], `successor` [N, Ω] nodes, beginning in `start`."""

    actions: Ints
    successor: Ints
    start: int

    def __init__(self, actions: ArrayLike, successor: ArrayLike, start: int = 0) -> None:
        given, after = np.asarray(actions), np.asarray(successor)
        if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer) or not given.size:
            raise UserError(f"actions: shape {given.shape} of {given.dtype}; expected [N] integers")
        if (
            after.ndim != 2
            or len(after) != given.size
            or not np.issubdtype(after.dtype, np.integer)
        ):
            raise UserError(
                f"successor: shape {after.shape} of {after.dtype}; "
                f"expected integers [{given.size}, Ω]"
            )
        outside = np.argwhere((after < 0) | (after >= given.size))
        if outside.size:
            n, o = outside[0]
            raise UserError(
                f"successor: node {n}, observation {o} leads to {after[n, o]}; "
                f"expected 0 to {given.size - 1}"
            )
        if not 0 <= start < given.size:
            raise UserError(f"start: node {start}; expected 0 to {given.size - 1}")
        object.__setattr__(self, "actions", frozen(given.astype(np.int64)))
        object.__setattr__(self, "successor", frozen(after.astype(np.int64)))
        object.__setattr__(self, "start", int(start))

    def value(self, pomdp: POMDP) -> Floats:
        """V(n, s) = R(s, a_n) + γ Σ_s' T(s'|s, a_n) Σ_o O(o|a_n, s') V(η(n, o), s') as [N, S].

        One linear system of N·S equations, solved exactly. At γ = 1 it needs every episode to end.
        Source: Hansen 1998, section 3.
        """
        self._check(pomdp)
        num_states, num_actions = pomdp.num_states, pomdp.num_actions
        rows = [
            self._moves(node, pomdp.transition[a::num_actions], pomdp.observation[a::num_actions])
            for node, a in enumerate(self.actions)
        ]
        reward = pomdp.reward[:, self.actions].T.ravel()
        chain = MRP(sparse.csr_array(sparse.vstack(rows, format="csr")), reward, pomdp.gamma)
        return evaluate(chain).value.reshape(-1, num_states)

    def _moves(
        self, node: int, transition: sparse.csr_array, observation: sparse.csr_array
    ) -> sparse.csr_array:
        """P((m, s') | (n, s)) for one node n as [S, N·S]."""
        num_states, size = transition.shape[0], len(self.actions)
        seen = observation.tocoo()
        column = self.successor[node][seen.col] * num_states + seen.row
        shape = (num_states, size * num_states)
        spread = sparse.csr_array((seen.data, (seen.row, column)), shape=shape)
        return sparse.csr_array(transition @ spread)

    def _check(self, pomdp: POMDP) -> None:
        if self.successor.shape[1] != pomdp.num_observations:
            raise UserError(
                f"the controller knows {self.successor.shape[1]} observations; "
                f"the world has {pomdp.num_observations}"
            )
        if int(self.actions.max()) >= pomdp.num_actions or int(self.actions.min()) < 0:
            raise UserError(
                f"the controller takes action {self.actions.max()}; "
                f"expected 0 to {pomdp.num_actions - 1}"
            )

    def __repr__(self) -> str:
        return f"Controller({len(self.actions)} nodes, {self.successor.shape[1]} observations)"


def policy_graph(
    pomdp: POMDP, solution: PartialSolution | AlphaSet, belief: ArrayLike | None = None
) -> Controller:
    """The α-vectors that are met from a belief (the initial one) on, as a controller.

    A node is an α-vector with its action; after observation o comes the vector that is the best
    at the belief b_ao, where b is the belief that first led to the node. If every belief that
    leads to a node agrees on its successors, the controller is worth what the vectors say; its
    `value` is exact in any case.
    Source: Cassandra, Kaelbling & Littman 1994; Kaelbling, Littman & Cassandra 1998, section 4.4.
    """
    given = pomdp.initial if belief is None else belief
    first = check_distribution(given, pomdp.num_states, "belief")
    met: dict[int, int] = {}
    beliefs: list[Floats] = []

    def node_at(b: Floats) -> int:
        best = int((solution.alphas @ b).argmax())
        if best not in met:
            met[best] = len(beliefs)
            beliefs.append(b)
        return met[best]

    node_at(first)
    successor: list[Ints] = []
    for node, b in enumerate(beliefs):  # grows while it is gone through
        action = int(solution.actions[list(met)[node]])
        joint = _joint(pomdp, b, action)
        sums = joint.sum(0)
        unseen = node_at(joint.sum(1) / sums.sum())
        after = np.full(pomdp.num_observations, unseen, np.int64)
        for o in np.flatnonzero(sums > 0):
            after[o] = node_at(joint[:, o] / sums[o])
        successor.append(after)
    return Controller(solution.actions[list(met)], np.array(successor))


def plan_graph(
    pomdp: POMDP, solution: PartialSolution, belief: ArrayLike | None = None
) -> Controller:
    """The plan that the best α-vector at a belief (the initial one) stands for, as a controller.

    Each α-vector was made by backing up others: its plan takes its action and then goes on as
    theirs. So the controller's value in `start` is that vector, state by state, and proves the
    lower bound. It has more nodes than `policy_graph` and never does better than the vectors.
    Source: Hansen 1998, section 3, with the successors that the backups chose.
    """
    given = pomdp.initial if belief is None else belief
    b = check_distribution(given, pomdp.num_states, "belief")
    first = int(solution.plans[(solution.alphas @ b).argmax()])
    number, order = {first: 0}, [first]
    for plan in order:  # grows while it is gone through
        for after in solution.plan_successors[plan].tolist():
            if after not in number:
                number[after] = len(order)
                order.append(after)
    successor = [[number[m] for m in solution.plan_successors[plan].tolist()] for plan in order]
    return Controller(solution.plan_actions[order], np.array(successor, np.int64))


@dataclass(frozen=True)
class Simulated:
    """A mean discounted return with its 95 % interval, mean ± half_width.

    Episodes are cut where what follows adds at most `tail`.
    """

    mean: float
    half_width: float
    num_episodes: int
    tail: float


def simulate(
    pomdp: POMDP,
    policy: Controller | PartialSolution | AlphaSet,
    *,
    num_episodes: int = 1000,
    seed: int = 0,
) -> Simulated:
    """The mean of Σ_t γ^t R(s_t, a_t) over episodes from the initial belief, γ < 1.

    A controller walks its nodes; α-vectors are followed through the exact belief. States and
    observations are drawn from the tables, by `seed`. Errors: γ = 1, fewer than two episodes.
    """
    if pomdp.gamma >= 1:
        raise UserError("gamma = 1: simulated returns need gamma < 1 to be cut soundly")
    if num_episodes < 2:
        raise UserError(f"num_episodes: {num_episodes}; expected 2 or more for an interval")
    greatest = float(np.abs(pomdp.reward).max()) / (1 - pomdp.gamma)
    num_steps = 1 if pomdp.gamma == 0 else int(np.ceil(np.log(SETTLED) / np.log(pomdp.gamma)))
    returns, rng = np.empty(num_episodes), np.random.default_rng(seed)
    table, initial = table_of(pomdp), np.array(pomdp.initial)
    if isinstance(policy, Controller):
        policy._check(pomdp)
        _walk_controller(
            table, initial, policy.actions, policy.successor, policy.start, num_steps, rng, returns
        )
    else:
        if policy.alphas.shape[1] != pomdp.num_states:
            raise UserError(
                f"the α-vectors have {policy.alphas.shape[1]} states; "
                f"the world has {pomdp.num_states}"
            )
        _walk_alphas(table, initial, policy.alphas, policy.actions, num_steps, rng, returns)
    half = NORMAL_95 * float(returns.std(ddof=1)) / num_episodes**0.5
    return Simulated(float(returns.mean()), half, num_episodes, pomdp.gamma**num_steps * greatest)


@compiled
def _drawn(index: Ints, p: Floats, begin: int, end: int, draw: float) -> int:
    left, chosen = draw, begin
    for k in range(begin, end):
        if p[k] > 0.0:
            chosen = k
            if left < p[k]:
                break
            left -= p[k]
    return int(index[chosen])


@compiled
def _walk_controller(
    table: Table,
    initial: Floats,
    actions: Ints,
    successor: Ints,
    start: int,
    num_steps: int,
    rng: np.random.Generator,
    returns: Floats,
) -> None:
    num_states, num_actions = table.reward.shape
    everywhere = np.arange(num_states)
    for episode in range(returns.size):
        state = _drawn(everywhere, initial, 0, num_states, rng.random())
        node, discount, total = start, 1.0, 0.0
        for _ in range(num_steps):
            a = actions[node]
            total += discount * table.reward[state, a]
            row = state * num_actions + a
            begin, end = table.t_ptr[row], table.t_ptr[row + 1]
            state = _drawn(table.t_idx, table.t_p, begin, end, rng.random())
            row = state * num_actions + a
            begin, end = table.o_ptr[row], table.o_ptr[row + 1]
            node = successor[node, _drawn(table.o_idx, table.o_p, begin, end, rng.random())]
            discount *= table.gamma
        returns[episode] = total


@compiled
def _walk_alphas(
    table: Table,
    initial: Floats,
    alphas: Floats,
    actions: Ints,
    num_steps: int,
    rng: np.random.Generator,
    returns: Floats,
) -> None:
    num_states, num_actions = table.reward.shape
    everywhere = np.arange(num_states)
    support, p = np.empty(num_states, np.int64), np.empty(num_states)
    scratch = np.zeros(num_states)
    for episode in range(returns.size):
        state = _drawn(everywhere, initial, 0, num_states, rng.random())
        size = 0
        for s in range(num_states):
            if initial[s] > 0.0:
                support[size], p[size] = s, initial[s]
                size += 1
        discount, total = 1.0, 0.0
        for _ in range(num_steps):
            a = actions[_best_alpha(alphas, support, p, size)]
            total += discount * table.reward[state, a]
            row = state * num_actions + a
            begin, end = table.t_ptr[row], table.t_ptr[row + 1]
            state = _drawn(table.t_idx, table.t_p, begin, end, rng.random())
            row = state * num_actions + a
            begin, end = table.o_ptr[row], table.o_ptr[row + 1]
            seen = _drawn(table.o_idx, table.o_p, begin, end, rng.random())
            size = _updated(table, support, p, size, a, seen, scratch)
            discount *= table.gamma
        returns[episode] = total


@compiled
def _best_alpha(alphas: Floats, support: Ints, p: Floats, size: int) -> int:
    best, chosen = -np.inf, 0
    for n in range(alphas.shape[0]):
        total = 0.0
        for i in range(size):
            total += p[i] * alphas[n, support[i]]
        if total > best:
            best, chosen = total, n
    return chosen


@compiled
def _updated(
    table: Table, support: Ints, p: Floats, size: int, a: int, seen: int, scratch: Floats
) -> int:
    """The belief after a and o, written over (support, p); returns its size."""
    num_actions = table.reward.shape[1]
    touched = np.empty(scratch.size, np.int64)
    count = 0
    for i in range(size):
        row = support[i] * num_actions + a
        for k in range(table.t_ptr[row], table.t_ptr[row + 1]):
            after = table.t_idx[k]
            if scratch[after] == 0.0 and p[i] * table.t_p[k] > 0.0:
                touched[count] = after
                count += 1
            scratch[after] += p[i] * table.t_p[k]
    total, kept = 0.0, 0
    for i in range(count):
        after = touched[i]
        row = after * num_actions + a
        for k in range(table.o_ptr[row], table.o_ptr[row + 1]):
            if table.o_idx[k] == seen and scratch[after] * table.o_p[k] > 0.0:
                support[kept], p[kept] = after, scratch[after] * table.o_p[k]
                total += p[kept]
                kept += 1
        scratch[after] = 0.0
    for i in range(kept):
        p[i] /= total
    return kept
