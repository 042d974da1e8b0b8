"""Finite worlds whose rules are known: the Markov reward process and the Markov decision process.

Transitions are kept as one sparse matrix with a row for each state and action in state-major order
(row s·A + a holds p(·|s, a)), which is what a Bellman backup reads from first to last. Worlds are
frozen: arrays that are already in this form are used as they are, not copied.

Left out: worlds with no table (see Gymnasium), continuous states, rewards of unbounded support.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from plaudit.mdp.checks import (
    check_distribution,
    check_gamma,
    check_names,
    check_rows,
    frozen,
    frozen_rows,
    terminal_states,
)
from plaudit.mdp.layout import Transition, reward_in_rows, state_major
from plaudit.records.errors import UserError, nearest

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False, init=False)
class MRP:
    """A Markov reward process (S, P, R, γ): a chain that pays R(s) on leaving s.

    V(s) = R(s) + γ Σ_s' p(s'|s) V(s').  Source: Sutton & Barto 2018, section 3.5, with the policy
    folded in.

    transition [S, S] dense or sparse, rows summing to one; reward [S], or [S, S] for r(s, s');
    gamma in [0, 1]. Raises UserError for anything else, naming the state.
    """

    transition: sparse.csr_array
    reward: Floats
    gamma: float
    states: tuple[str, ...] | None
    row_error: float

    def __init__(
        self,
        transition: Transition,
        reward: ArrayLike,
        gamma: float,
        *,
        states: Sequence[str] | None = None,
    ) -> None:
        rows = state_major(transition, num_actions=1)
        row_error = check_rows(rows, num_actions=1, states=states)
        expected, _ = reward_in_rows(reward, rows, num_actions=1)
        if np.isneginf(expected).any():
            raise UserError("an MRP has no actions, so no reward of -inf, which forbids one")
        object.__setattr__(self, "transition", frozen_rows(rows))
        object.__setattr__(self, "reward", frozen(expected[:, 0]))
        object.__setattr__(self, "gamma", check_gamma(gamma))
        object.__setattr__(self, "row_error", row_error)
        object.__setattr__(self, "states", check_names(states, rows.shape[0], "states"))

    @property
    def num_states(self) -> int:
        """S."""
        return int(self.reward.shape[0])

    def __repr__(self) -> str:
        return f"MRP({self.num_states} states, {self.transition.nnz} transitions, γ={self.gamma})"


@dataclass(frozen=True, eq=False, init=False)
class MDP:
    """A Markov decision process (S, A, P, R, γ) with a table of its rules.

    transition: [A, S, S] dense, a sequence of A sparse or dense [S, S], or one sparse or dense
    [S·A, S] in state-major order (row s·A + a).
    reward: [S], [S, A], or [A, S, S] for r(s, a, s'), or a sparse matrix shaped as the rows; a
    reward of -inf (in every next state) says that the action does not exist in that state; its row
    is then ignored.
    gamma in [0, 1].
    initial [S]: where episodes begin; by default evenly in every state that is not terminal.
    reward_std [S, A]: standard deviation of normal noise that samples of the reward carry; it
    changes no expectation.
    row_error: how far a row's sum is from one at most (rounding), set by us.
    grid [rows, columns]: the state drawn in each cell, -1 for none; pictures use it.

    A state is terminal if every action there stays and pays nothing. Raises UserError for rows
    that do not sum to one (naming state, action and sum), and for any other mistake.

    Check: `mdp.under(policy)` is the chain of Sutton & Barto 2018, equation 4.4.
    """

    transition: sparse.csr_array
    reward: Floats
    gamma: float
    initial: Floats
    reward_next: Floats | None
    reward_std: Floats | None
    states: tuple[str, ...] | None
    actions: tuple[str, ...] | None
    grid: Ints | None
    terminal: NDArray[np.bool_]
    row_error: float

    def __init__(
        self,
        transition: Transition,
        reward: ArrayLike | sparse.sparray | Sequence[sparse.sparray],
        gamma: float,
        *,
        initial: ArrayLike | None = None,
        reward_std: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        grid: ArrayLike | None = None,
    ) -> None:
        rows = state_major(transition)
        num_states = rows.shape[1]
        num_actions = rows.shape[0] // num_states
        expected, per_next = reward_in_rows(reward, rows, num_actions)
        rows, per_next = _without_missing(rows, per_next, expected)
        missing = np.isneginf(expected)
        row_error = check_rows(rows, num_actions, states, actions, missing=missing)
        terminal = terminal_states(rows.indptr, rows.indices, rows.data, expected)
        put = object.__setattr__
        put(self, "transition", frozen_rows(rows))
        put(self, "reward", frozen(expected))
        put(self, "reward_next", None if per_next is None else frozen(per_next))
        put(self, "gamma", check_gamma(gamma))
        put(self, "row_error", row_error)
        put(self, "initial", frozen(_initial(initial, terminal)))
        put(self, "reward_std", _std(reward_std, expected.shape))
        put(self, "states", check_names(states, num_states, "states"))
        put(self, "actions", check_names(actions, num_actions, "actions"))
        put(self, "grid", _grid(grid, num_states))
        put(self, "terminal", frozen(terminal))

    @property
    def num_states(self) -> int:
        """S."""
        return int(self.reward.shape[0])

    @property
    def num_actions(self) -> int:
        """A."""
        return int(self.reward.shape[1])

    @property
    def available(self) -> NDArray[np.bool_]:
        """[S, A]: the actions that exist."""
        return ~np.isneginf(self.reward)

    def under(self, policy: ArrayLike) -> MRP:
        """The Markov reward process that a policy makes of this world.

        p_π(s'|s) = Σ_a π(a|s) p(s'|s, a),  R_π(s) = Σ_a π(a|s) R(s, a).
        policy: [S] actions, or [S, A] probabilities.
        """
        probability = policy_rows(self, policy)
        state, action = np.nonzero(probability)
        weight = sparse.csr_array(
            (probability[state, action], (state, state * self.num_actions + action)),
            shape=(self.num_states, probability.size),
        )
        paid = np.where(probability > 0, self.reward, 0.0)
        chain = sparse.csr_array(weight @ self.transition)
        return MRP(chain, (probability * paid).sum(1), self.gamma, states=self.states)

    def with_gamma(self, gamma: float) -> MDP:
        """The same world with another discount."""
        other = object.__new__(MDP)
        for name, value in self.__dict__.items():
            object.__setattr__(other, name, value)
        object.__setattr__(other, "gamma", check_gamma(gamma))
        return other

    def dense(self) -> Floats:
        """p(s'|s, a) as [A, S, S]: for small worlds and for those who read."""
        shape = (self.num_states, self.num_actions, self.num_states)
        return np.ascontiguousarray(self.transition.toarray().reshape(shape).transpose(1, 0, 2))

    def state(self, name: str | int) -> int:
        """The number of a state by its name (a number is only checked)."""
        return _number(name, self.states, self.num_states, "state")

    def action(self, name: str | int) -> int:
        """The number of an action by its name (a number is only checked)."""
        return _number(name, self.actions, self.num_actions, "action")

    def __repr__(self) -> str:
        return (
            f"MDP({self.num_states} states, {self.num_actions} actions, "
            f"{self.transition.nnz} transitions, γ={self.gamma})"
        )


def policy_rows(mdp: MDP, policy: ArrayLike) -> Floats:
    """A policy as probabilities [S, A], from actions [S] or probabilities [S, A]; checked."""
    given = np.asarray(policy)
    shape = mdp.reward.shape
    if given.shape == shape[:1] and np.issubdtype(given.dtype, np.integer):
        wrong = np.flatnonzero((given < 0) | (given >= shape[1]))
        if wrong.size:
            s = int(wrong[0])
            raise UserError(
                f"policy: state {s} has action {given[s]}; expected 0 to {shape[1] - 1}"
            )
        rows = np.zeros(shape)
        rows[np.arange(shape[0]), given] = 1.0
    elif given.shape == shape:
        rows = np.asarray(given, dtype=np.float64)
        for s in np.flatnonzero(~(np.abs(rows.sum(1) - 1) <= 1e-8))[:1]:
            raise UserError(
                f"policy: probabilities of state {s} sum to {rows[s].sum():.10g}, not 1"
            )
        if (rows < 0).any():
            s, a = np.argwhere(rows < 0)[0]
            raise UserError(f"policy: state {s}, action {a} has probability {rows[s, a]:.6g}")
    else:
        raise UserError(
            f"policy: shape {given.shape} of {given.dtype}; expected {shape[0]} actions (integers) "
            f"or probabilities of shape {shape}"
        )
    absent = np.argwhere((rows > 0) & ~mdp.available)
    if absent.size:
        s, a = absent[0]
        raise UserError(f"policy: state {s} takes action {a}, which does not exist there")
    return rows


def _without_missing(
    rows: sparse.csr_array, per_next: Floats | None, expected: Floats
) -> tuple[sparse.csr_array, Floats | None]:
    """The rows of actions that do not exist, emptied."""
    missing = np.isneginf(expected).ravel()
    if not missing.any():
        return rows, per_next
    alone = np.flatnonzero(missing.reshape(expected.shape).all(1))
    if alone.size:
        raise UserError(f"state {alone[0]} has no action: every reward there is -inf")
    counts = np.diff(rows.indptr)
    keep = np.repeat(~missing, counts)
    indptr = np.concatenate([[0], np.cumsum(np.where(missing, 0, counts))])
    kept = (rows.data[keep], rows.indices[keep], indptr.astype(rows.indptr.dtype))
    return (
        sparse.csr_array(kept, shape=rows.shape),
        None if per_next is None else per_next[keep],
    )


def _initial(initial: ArrayLike | None, terminal: NDArray[np.bool_]) -> Floats:
    if initial is not None:
        return check_distribution(initial, terminal.size, "initial")
    begin = ~terminal if not terminal.all() else np.ones_like(terminal)
    even: Floats = begin / begin.sum()
    return even


def _std(reward_std: ArrayLike | None, shape: tuple[int, ...]) -> Floats | None:
    if reward_std is None:
        return None
    given = np.asarray(reward_std, dtype=np.float64)
    if given.shape != shape:
        raise UserError(f"reward_std: shape {given.shape}; expected {shape}")
    if not (given >= 0).all():
        s, a = np.argwhere(~(given >= 0))[0]
        raise UserError(f"reward_std: state {s}, action {a} has {given[s, a]}; expected 0 or more")
    return frozen(given)


def _grid(grid: ArrayLike | None, num_states: int) -> Ints | None:
    if grid is None:
        return None
    cells = np.asarray(grid, dtype=np.int64)
    if cells.ndim != 2 or (cells < -1).any() or (cells >= num_states).any():
        raise UserError(
            f"grid: expected rows and columns of states from 0 to {num_states - 1}, or -1"
        )
    return frozen(cells)


def _number(name: str | int, names: tuple[str, ...] | None, count: int, kind: str) -> int:
    if isinstance(name, str):
        if names is None or name not in names:
            hint = nearest(name, names or ())
            raise UserError(f"no {kind} named {name!r}{hint}; there are {count}")
        return names.index(name)
    if not 0 <= name < count:
        raise UserError(f"{kind} {name}: expected 0 to {count - 1}")
    return operator.index(name)
