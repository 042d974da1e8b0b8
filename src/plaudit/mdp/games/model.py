"""Games whose payoffs are known: the matrix game, and the Markov game of two players.

A matrix game is one simultaneous choice; a Markov game is a finite world in which two players
choose at once in every state. Both are frozen.

Left out: imperfect information over time, Markov games of three or more, actions that exist in
some states only (give them the payoff of another action).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from plaudit.mdp.layout import Transition, state_major
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False, init=False)
class MatrixGame:
    """A game of one simultaneous choice: player p is paid payoffs[p, a_0, ..., a_{n-1}].

    payoffs: [n, A_0, ..., A_{n-1}] for n players; two matrices [A_0, A_1]; or one matrix for a
    zero-sum game, which is what the row player gets and the column player pays.
    actions: for each player a name for each action; players: a name for each player.
    Raises UserError for anything else, naming the player and the joint action.
    Source: von Neumann & Morgenstern 1944; Nash 1951.
    """

    payoffs: Floats
    players: tuple[str, ...] | None
    actions: tuple[tuple[str, ...], ...] | None

    def __init__(
        self,
        payoffs: ArrayLike,
        *,
        players: Sequence[str] | None = None,
        actions: Sequence[Sequence[str]] | None = None,
    ) -> None:
        tensor = _payoff_tensor(payoffs)
        put = object.__setattr__
        put(self, "payoffs", frozen(tensor))
        put(self, "players", check_names(players, tensor.shape[0], "players"))
        put(self, "actions", _action_names(actions, tensor.shape[1:]))

    @property
    def num_players(self) -> int:
        """n."""
        return int(self.payoffs.shape[0])

    @property
    def num_actions(self) -> tuple[int, ...]:
        """(A_0, ..., A_{n-1})."""
        return tuple(int(count) for count in self.payoffs.shape[1:])

    @property
    def zero_sum(self) -> bool:
        """Two players, of whom each gets what the other pays."""
        return self.num_players == 2 and bool((self.payoffs[0] == -self.payoffs[1]).all())

    def expected(self, strategies: Sequence[ArrayLike]) -> Floats:
        """[n]: u_p = Σ_a Π_i x_i(a_i) payoffs[p, a], when all draw from their strategies."""
        x = self.strategies(strategies)
        return np.array([float(x[0] @ self.deviations(x, player=0, paid=p)) for p in range(len(x))])

    def deviations(
        self, strategies: Sequence[ArrayLike], *, player: int, paid: int | None = None
    ) -> Floats:
        """[A_player]: what `player` (or player `paid`) gets for each of its actions, others fixed."""
        x = self.strategies(strategies)
        left = self.payoffs[player if paid is None else paid]
        for other in reversed(range(self.num_players)):
            if other != player:
                left = np.tensordot(left, x[other], axes=(other, 0))
        return np.asarray(left, dtype=np.float64)

    def gains(self, strategies: Sequence[ArrayLike]) -> Floats:
        """[n]: what each player gains by its best answer; all zero at a Nash equilibrium."""
        x = self.strategies(strategies)
        best = [self.deviations(x, player=p).max() for p in range(self.num_players)]
        return np.maximum(np.array(best) - self.expected(x), 0.0)

    def exploitability(self, strategies: Sequence[ArrayLike]) -> float:
        """The sum of `gains`: in a zero-sum game the gap between the two players' guarantees.

        max_i (A y)_i - min_j (xᵀ A)_j; nobody gains more than this by leaving.
        """
        return float(self.gains(strategies).sum())

    def strategies(self, given: Sequence[ArrayLike]) -> tuple[Floats, ...]:
        """A distribution over actions for each player, checked."""
        if len(given) != self.num_players:
            raise UserError(
                f"strategies: {len(given)} of them; expected one for each of the {self.num_players} "
                "players"
            )
        return tuple(
            check_distribution(x, count, f"strategy of player {p}")
            for p, (x, count) in enumerate(zip(given, self.num_actions, strict=True))
        )

    def action(self, player: int, name: str | int) -> int:
        """The number of a player's action by its name (a number is only checked)."""
        count = self.num_actions[player]
        if isinstance(name, str):
            names = () if self.actions is None else self.actions[player]
            if name not in names:
                raise UserError(f"player {player} has no action {name!r}{nearest(name, names)}")
            return names.index(name)
        if not 0 <= name < count:
            raise UserError(f"action {name} of player {player}: expected 0 to {count - 1}")
        return int(name)

    def __repr__(self) -> str:
        counts = " × ".join(str(count) for count in self.num_actions)
        return f"MatrixGame({counts} actions{', zero sum' if self.zero_sum else ''})"


@dataclass(frozen=True, eq=False, init=False)
class MarkovGame:
    """Two players who choose at once in every state of a finite world.

    transition: [S, A_0, A_1, S] dense, or one sparse or dense matrix [S·A_0·A_1, S], whose row
    (s·A_0 + a_0)·A_1 + a_1 holds p(·|s, a_0, a_1).
    reward: [S, A_0, A_1] for zero sum (what player 0 gets and player 1 pays), or [2, S, A_0, A_1].
    gamma in [0, 1]; initial [S] as in `MDP`. A state is terminal if it is never left and pays
    nobody. Raises UserError naming the state and the joint action.
    Source: Shapley 1953; Littman 1994.
    """

    transition: sparse.csr_array
    reward: Floats
    gamma: float
    initial: Floats
    states: tuple[str, ...] | None
    actions: tuple[tuple[str, ...], ...] | None
    terminal: NDArray[np.bool_]

    def __init__(
        self,
        transition: Transition,
        reward: ArrayLike,
        gamma: float,
        *,
        initial: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        actions: Sequence[Sequence[str]] | None = None,
    ) -> None:
        paid = _reward_tensor(reward)
        num_states, num_first, num_second = paid.shape[1:]
        rows = _joint_rows(transition, num_states, num_first, num_second)
        names = _action_names(actions, (num_first, num_second))
        check_rows(rows, num_first * num_second, states, _joint_names(num_first, num_second, names))
        stakes = np.abs(paid).sum(0).reshape(num_states, -1)
        terminal = terminal_states(rows.indptr, rows.indices, rows.data, stakes)
        put = object.__setattr__
        put(self, "transition", frozen_rows(rows))
        put(self, "reward", frozen(paid))
        put(self, "gamma", check_gamma(gamma))
        put(self, "states", check_names(states, num_states, "states"))
        put(self, "actions", names)
        put(self, "terminal", frozen(terminal))
        put(self, "initial", frozen(_initial(initial, terminal)))

    @property
    def num_states(self) -> int:
        """S."""
        return int(self.reward.shape[1])

    @property
    def num_actions(self) -> tuple[int, int]:
        """(A_0, A_1)."""
        return int(self.reward.shape[2]), int(self.reward.shape[3])

    @property
    def zero_sum(self) -> bool:
        """Each player gets what the other pays."""
        return bool((self.reward[0] == -self.reward[1]).all())

    def together(self, player: int) -> MDP:
        """The world in which one mind chooses for both, paid as `player`: actions a_0·A_1 + a_1."""
        paid = self.reward[player].reshape(self.num_states, -1)
        return MDP(self.transition, paid, self.gamma, initial=self.initial, states=self.states)

    def against(self, policy: ArrayLike, *, player: int) -> MDP:
        """The MDP that is left to `player` when the other one keeps to `policy` [S, A_other].

        p(s'|s, a) = Σ_o policy(o|s) p(s'|s, a, o), rewards likewise; its optimal value is the best
        answer to the policy.
        """
        first, second = self.num_actions
        other = self._policy(policy, 1 - player)
        row = np.arange(self.num_states * first * second)
        s, a, o = np.unravel_index(row, (self.num_states, first, second))
        own, theirs = (a, o) if player == 0 else (o, a)
        count = self.num_actions[player]
        weight = sparse.csr_array(
            (other[s, theirs], (s * count + own, row)),
            shape=(self.num_states * count, row.size),
        )
        paid = self.reward[player] if player == 0 else self.reward[player].transpose(0, 2, 1)
        expected = (paid * other[:, None, :]).sum(-1)
        moves = sparse.csr_array(weight @ self.transition)
        return MDP(moves, expected, self.gamma, initial=self.initial, states=self.states)

    def stage(self, value: ArrayLike, state: int) -> MatrixGame:
        """The matrix game of one state when what follows is worth `value` ([S], or [2, S]).

        Q_p(a_0, a_1) = r_p(s, a_0, a_1) + γ Σ_s' p(s'|s, a_0, a_1) value_p(s').
        """
        worth = np.asarray(value, dtype=np.float64)
        if worth.shape == (self.num_states,) and self.zero_sum:
            worth = np.stack([worth, -worth])
        if worth.shape != (2, self.num_states):
            raise UserError(
                f"value: shape {worth.shape}; expected [2, {self.num_states}]"
                + (f" or [{self.num_states}]" if self.zero_sum else "")
            )
        joint = self.num_actions[0] * self.num_actions[1]
        rows = self.transition[state * joint : (state + 1) * joint]
        later = np.stack([(rows @ worth[p]).reshape(self.num_actions) for p in (0, 1)])
        return MatrixGame(self.reward[:, state] + self.gamma * later, actions=self.actions)

    def _policy(self, policy: ArrayLike, player: int) -> Floats:
        rows = np.asarray(policy, dtype=np.float64)
        shape = (self.num_states, self.num_actions[player])
        if rows.shape != shape:
            raise UserError(f"policy of player {player}: shape {rows.shape}; expected {shape}")
        for s in range(self.num_states):
            check_distribution(rows[s], shape[1], f"policy of player {player}, state {s}")
        return rows

    def __repr__(self) -> str:
        first, second = self.num_actions
        return (
            f"MarkovGame({self.num_states} states, {first} × {second} actions, "
            f"{self.transition.nnz} transitions, γ={self.gamma})"
        )


def _payoff_tensor(payoffs: ArrayLike) -> Floats:
    try:
        given = np.asarray(payoffs, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(
            "payoffs: not an array of numbers; expected [players, A_0, A_1, ...], two matrices of "
            "one shape, or one matrix for a zero-sum game"
        ) from None
    if given.ndim == 2:
        given = np.stack([given, -given])
    if given.ndim < 2 or given.shape[0] != given.ndim - 1 or given.size == 0:
        raise UserError(
            f"payoffs: shape {given.shape}; expected [n, A_0, ..., A_(n-1)] for n players, or one "
            "matrix for a zero-sum game"
        )
    wrong = np.argwhere(~np.isfinite(given))
    if wrong.size:
        player, *joint = (int(i) for i in wrong[0])
        raise UserError(
            f"payoffs: player {player} at joint action {tuple(joint)} has {given[tuple(wrong[0])]}; "
            "expected a finite number"
        )
    return given


def _reward_tensor(reward: ArrayLike) -> Floats:
    try:
        paid = np.asarray(reward, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("reward: not an array of numbers") from None
    if paid.ndim == 3:
        paid = np.stack([paid, -paid])
    if paid.ndim != 4 or paid.shape[0] != 2 or paid.size == 0:
        raise UserError(
            f"reward: shape {np.shape(reward)}; expected [S, A_0, A_1] for zero sum, or "
            "[2, S, A_0, A_1]"
        )
    wrong = np.argwhere(~np.isfinite(paid))
    if wrong.size:
        p, s, a, o = (int(i) for i in wrong[0])
        raise UserError(
            f"reward: player {p}, state {s}, actions ({a}, {o}) has {paid[p, s, a, o]}; expected a "
            "finite number"
        )
    return paid


def _initial(initial: ArrayLike | None, terminal: NDArray[np.bool_]) -> Floats:
    if initial is not None:
        return check_distribution(initial, terminal.size, "initial")
    begin = ~terminal if not terminal.all() else np.ones_like(terminal)
    return np.asarray(begin / begin.sum())


def _joint_rows(
    transition: Any, num_states: int, num_first: int, num_second: int
) -> sparse.csr_array:
    full = (num_states, num_first, num_second, num_states)
    flat = (num_states * num_first * num_second, num_states)
    shape = transition.shape if sparse.issparse(transition) else np.shape(transition)
    if tuple(shape) not in (full, flat):
        raise UserError(
            f"transition: shape {tuple(shape)}; expected {full} or {flat}, as the reward has "
            f"{num_states} states and {num_first} × {num_second} actions"
        )
    return state_major(
        transition
        if sparse.issparse(transition)
        else np.asarray(transition, dtype=np.float64).reshape(flat)
    )


def _action_names(
    actions: Sequence[Sequence[str]] | None, counts: Sequence[int]
) -> tuple[tuple[str, ...], ...] | None:
    if actions is None:
        return None
    if len(actions) != len(counts):
        raise UserError(f"actions: {len(actions)} lists of names for {len(counts)} players")
    named = []
    for player, (names, count) in enumerate(zip(actions, counts, strict=True)):
        named.append(check_names(names, count, f"actions of player {player}") or ())
    return tuple(named)


def _joint_names(
    num_first: int, num_second: int, names: tuple[tuple[str, ...], ...] | None
) -> list[str]:
    """A name for each joint action, for sentences about faults."""
    rows, columns = names or (range(num_first), range(num_second))
    return [f"{a}, {b}" for a in rows for b in columns]
