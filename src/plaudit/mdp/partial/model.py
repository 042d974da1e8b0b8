"""The partially observed Markov decision process: a world of which the agent sees only signals.

Observations are kept as the transitions are: one sparse matrix with a row for each state arrived
in and action taken, row s'·A + a holding O(·|a, s'). Rewards are reduced to E[r | s, a], which is
all that planning needs.

Left out: observations without a table, and actions that exist only in some states (the agent does
not know in which state it is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from plaudit.mdp.checks import SUM_TOLERANCE, check_names, frozen_rows, row_fault
from plaudit.mdp.layout import Transition, state_major
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest

Floats: TypeAlias = NDArray[np.float64]

FORMS = "expected [A, S, Ω], a list of A matrices [S, Ω], or one [S, Ω] for all actions"


@dataclass(frozen=True, eq=False, init=False)
class POMDP:
    """A partially observed Markov decision process (S, A, T, R, Ω, O, γ).

    After action a the state moves from s to s' by T(s'|s, a); the agent then sees o with
    O(o|a, s'), and is paid R(s, a).
    transition, initial, states, actions: as in MDP.
    observation: [A, S, Ω] dense, a sequence of A matrices [S, Ω] dense or sparse, one [S, Ω] for
    all actions, or one sparse [S·A, Ω] with row s'·A + a.
    reward: as in MDP, or [A, S, S, Ω] for r(s, a, s', o), kept as its expectation.
    `pomdp.mdp` is the same world fully observed. Raises UserError, one sentence that names the
    action, the state and the sum, for tables that are not distributions and for any other mistake.
    Source: Kaelbling, Littman & Cassandra 1998, section 3.1.
    """

    mdp: MDP
    observation: sparse.csr_array
    observations: tuple[str, ...] | None

    def __init__(
        self,
        transition: Transition,
        observation: Any,
        reward: ArrayLike | sparse.sparray | Sequence[sparse.sparray],
        gamma: float,
        *,
        initial: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        observations: Sequence[str] | None = None,
    ) -> None:
        rows = state_major(transition)
        num_states = rows.shape[1]
        num_actions = rows.shape[0] // num_states
        seen = _observation_rows(observation, num_states, num_actions)
        _check_observation(seen, num_actions, states, actions)
        paid = _without_observation(reward, seen, num_states, num_actions)
        mdp = MDP(rows, paid, gamma, initial=initial, states=states, actions=actions)
        if np.isneginf(mdp.reward).any():
            s, a = np.argwhere(np.isneginf(mdp.reward))[0]
            raise UserError(
                f"reward: state {s}, action {a} has -inf; in a POMDP every action exists everywhere"
            )
        put = object.__setattr__
        put(self, "mdp", mdp)
        put(self, "observation", frozen_rows(seen))
        put(self, "observations", check_names(observations, seen.shape[1], "observations"))

    @property
    def transition(self) -> sparse.csr_array:
        """[S·A, S], row s·A + a."""
        return self.mdp.transition

    @property
    def reward(self) -> Floats:
        """[S, A], expected."""
        return self.mdp.reward

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.mdp.gamma

    @property
    def initial(self) -> Floats:
        """[S]: the belief before the first action."""
        return self.mdp.initial

    @property
    def states(self) -> tuple[str, ...] | None:
        """Names of the states, or none."""
        return self.mdp.states

    @property
    def actions(self) -> tuple[str, ...] | None:
        """Names of the actions, or none."""
        return self.mdp.actions

    @property
    def num_states(self) -> int:
        """S."""
        return self.mdp.num_states

    @property
    def num_actions(self) -> int:
        """A."""
        return self.mdp.num_actions

    @property
    def num_observations(self) -> int:
        """|Ω|."""
        return int(self.observation.shape[1])

    def dense_observation(self) -> Floats:
        """O(o|a, s') as [A, S, Ω]: for small worlds and for those who read."""
        shape = (self.num_states, self.num_actions, self.num_observations)
        return np.ascontiguousarray(self.observation.toarray().reshape(shape).transpose(1, 0, 2))

    def state(self, name: str | int) -> int:
        """The number of a state by its name (a number is only checked)."""
        return self.mdp.state(name)

    def action(self, name: str | int) -> int:
        """The number of an action by its name (a number is only checked)."""
        return self.mdp.action(name)

    def seen(self, name: str | int) -> int:
        """The number of an observation by its name (a number is only checked)."""
        if isinstance(name, str):
            if self.observations is None or name not in self.observations:
                hint = nearest(name, self.observations or ())
                raise UserError(
                    f"no observation named {name!r}{hint}; there are {self.num_observations}"
                )
            return self.observations.index(name)
        if not 0 <= name < self.num_observations:
            raise UserError(f"observation {name}: expected 0 to {self.num_observations - 1}")
        return int(name)

    def __repr__(self) -> str:
        return (
            f"POMDP({self.num_states} states, {self.num_actions} actions, "
            f"{self.num_observations} observations, γ={self.gamma})"
        )


def _observation_rows(given: Any, num_states: int, num_actions: int) -> sparse.csr_array:
    """Observations in any form as one CSR matrix [S·A, Ω] of float64, row s'·A + a."""
    if sparse.issparse(given):
        matrix = sparse.csr_array(given, dtype=np.float64)
        if matrix.ndim == 2 and matrix.shape[0] == num_states * num_actions:
            return matrix
        by_action = [matrix] * num_actions
    elif isinstance(given, list | tuple) and any(sparse.issparse(part) for part in given):
        by_action = [sparse.csr_array(part, dtype=np.float64) for part in given]
    else:
        by_action = _matrices(given, num_actions)
    shapes = sorted({matrix.shape for matrix in by_action})
    right = len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == num_states
    if len(by_action) != num_actions or not right or shapes[0][1] == 0:
        raise UserError(
            f"observation: {len(by_action)} matrices of shapes {shapes}; {FORMS} "
            f"with A = {num_actions}, S = {num_states}"
        )
    stacked = sparse.csr_array(sparse.vstack(by_action, format="csr"))
    order = np.arange(num_actions * num_states).reshape(num_actions, num_states).T.ravel()
    return sparse.csr_array(stacked[order])


def _matrices(given: Any, num_actions: int) -> list[sparse.csr_array]:
    try:
        dense = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"observation: not an array of numbers ({error})") from None
    if dense.ndim == 2:
        return [sparse.csr_array(dense)] * num_actions
    if dense.ndim != 3:
        raise UserError(f"observation: shape {dense.shape}; {FORMS}")
    return [sparse.csr_array(part) for part in dense]


def _check_observation(
    rows: sparse.csr_array,
    num_actions: int,
    states: Sequence[str] | None,
    actions: Sequence[str] | None,
) -> None:
    none_missing = np.zeros(rows.shape[0], np.bool_)
    fault, row, amount = row_fault(
        rows.indptr, rows.indices, rows.data, none_missing, rows.shape[1], SUM_TOLERANCE
    )
    if not fault:
        return
    state, action = divmod(int(row), num_actions)
    where = f"observation: action {_named(action, actions)}, next state {_named(state, states)}"
    wrong = {
        3: f"observation {amount:.0f}; expected 0 to {rows.shape[1] - 1}",
        4: f"probabilities sum to {amount:.10g}, not 1",
    }.get(int(fault), f"a probability is {amount:.6g}; expected a number from 0 to 1")
    raise UserError(f"{where}: {wrong}")


def _named(number: int, names: Sequence[str] | None) -> str:
    known = names is not None and number < len(names)
    return f"{number} ({names[number]})" if known and names is not None else str(number)


def _without_observation(
    reward: Any, seen: sparse.csr_array, num_states: int, num_actions: int
) -> Any:
    """r(s, a, s', o) as r(s, a, s') = Σ_o O(o|a, s') r(s, a, s', o); other forms as they are."""
    if sparse.issparse(reward) or np.ndim(_shaped(reward)) != 4:
        return reward
    given = np.asarray(reward, dtype=np.float64)
    expected = (num_actions, num_states, num_states, seen.shape[1])
    if given.shape != expected:
        raise UserError(f"reward: shape {given.shape}; expected {expected} for r(s, a, s', o)")
    by_action = seen.toarray().reshape(num_states, num_actions, -1)
    counted = np.where(by_action.transpose(1, 0, 2)[:, None] > 0, given, 0.0)
    wrong = np.argwhere(~np.isfinite(counted))
    if wrong.size:
        a, s, after, o = wrong[0]
        raise UserError(
            f"reward: state {s}, action {a}, next state {after}, observation {o} has "
            f"{counted[a, s, after, o]}; expected a finite number"
        )
    return np.einsum("tao,asto->ast", by_action, counted)


def _shaped(reward: Any) -> Any:
    if isinstance(reward, list | tuple) and any(sparse.issparse(part) for part in reward):
        return 0.0  # a list of sparse matrices has no four dimensions
    try:
        return np.asarray(reward, dtype=np.float64)
    except (TypeError, ValueError):
        return 0.0  # MDP says what is wrong with it
