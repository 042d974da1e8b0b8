"""Prioritised replay: transitions that surprised are drawn more often, and weigh less.

    P(i) = p_i^α / Σ p^α,   p_i = |δ_i| + ε,   w_i = (N·P(i))^−β / max_j w_j

over the N transitions held; the largest weight is that of the batch. A transition that nobody has
learned from has the largest priority seen so far. Powers p^α lie in a binary tree of float64 sums:
a change and a draw cost O(log N), and every sum is made anew from its two parts, so that no error
gathers.

Source: Schaul et al. 2016, "Prioritized experience replay", sections 3.3 and 3.4, appendix B.2.1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from plaudit.envs.replay import Array, Batch, Ints, Replay
from plaudit.envs.worlds import Transition
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

Tree = NDArray[np.float64]

SMALLEST = 1e-6
"""ε: added to |δ|, so that nothing is never drawn again (our choice; the paper gives no value)."""


def empty_tree(num_leaves: int) -> Tree:
    """Sums of no priorities: node i is node 2i + node 2i+1, the root is 1, leaf k is size/2 + k."""
    return np.zeros(2 << (num_leaves - 1).bit_length(), np.float64)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def set_leaves(tree: Tree, leaves: Ints, values: Tree) -> None:
    """Sets `leaves` [N] to `values` [N], the last of equal leaves winning, and the sums above."""
    first = tree.size // 2
    for i in range(leaves.size):
        node = first + leaves[i]
        tree[node] = values[i]
        node //= 2
        while node > 0:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node //= 2


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def find_leaves(tree: Tree, masses: Tree) -> Ints:
    """The leaf in which each of `masses` [N] falls, the leaves laid end to end from 0 to the root.

    A leaf of 0 is never found, whatever the rounding, while the root is above 0.
    """
    first = tree.size // 2
    leaves = np.empty(masses.size, np.int64)
    for i in range(masses.size):
        node, mass = 1, masses[i]
        while node < first:
            node *= 2
            if mass >= tree[node] and tree[node + 1] > 0:
                mass -= tree[node]
                node += 1
            elif tree[node] == 0:
                node += 1
        leaves[i] = node - first
    return leaves


class PrioritisedReplay(Replay):
    """The newest `capacity` transitions of B copies, drawn by priority; else as `Replay`."""

    def __init__(
        self,
        capacity: int,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        num_envs: int,
        *,
        gamma: float,
        n: int = 1,
        alpha: float = 0.6,
    ) -> None:
        super().__init__(capacity, obs_spec, action_spec, num_envs, gamma=gamma, n=n)
        self.alpha = float(alpha)
        self._tree = empty_tree(self.num_slots * num_envs)
        self._highest = 1.0
        """The largest p^α seen."""

    def add(self, obs: Array, actions: Array, transition: Transition) -> None:
        """As `Replay.add`; what is new has the largest priority so far."""
        super().add(obs, actions, transition)
        kept = np.flatnonzero(transition.mask)
        rows = self._newest[kept] * self.num_envs + kept
        set_leaves(self._tree, rows, np.full(rows.size, self._highest))

    def sample(self, batch_size: int, rng: np.random.Generator, *, beta: float = 1.0) -> Batch:
        """A batch drawn by priority, one from each of `batch_size` equal parts of their sum."""
        assert len(self) > 0, "nothing is held yet"
        total = self._tree[1]
        masses = (np.arange(batch_size) + rng.random(batch_size)) * (total / batch_size)
        rows = find_leaves(self._tree, masses)
        batch = self.batch(rows)
        chance = self._tree[rows + self._tree.size // 2] / total
        weight = (len(self) * chance) ** -beta
        batch.weight = (weight / weight.max()).astype(np.float32)
        return batch

    def refresh(self, rows: Ints, delta: NDArray[np.float32]) -> None:
        """Gives `rows` [B] the priorities of their new TD errors `delta` [B], of any sign.

        Raises UserError where an error is no finite number, which would spoil every sum.
        """
        values = (np.abs(delta.astype(np.float64)) + SMALLEST) ** self.alpha
        highest = float(values.max())
        if not math.isfinite(highest):
            raise UserError(
                "a TD error is not a finite number: the values have grown beyond bounds, so lower "
                "the learning rate, or scale the rewards"
            )
        self._highest = max(self._highest, highest)
        set_leaves(self._tree, rows, values)

    def state(self) -> Saved:
        """As `Replay.state`, with the priorities."""
        arrays, facts = super().state()
        first = self._tree.size // 2
        arrays["priority"] = self._tree[first : first + arrays["reward"].size].copy()
        return arrays, {**facts, "highest": self._highest}

    def restore(self, saved: Saved) -> None:
        """Holds what `saved` held; the sums are made anew, equal to the bit."""
        super().restore(saved)
        arrays, facts = saved
        self._tree[:] = 0.0
        set_leaves(self._tree, np.arange(arrays["priority"].size), arrays["priority"])
        self._highest = float(facts["highest"])
