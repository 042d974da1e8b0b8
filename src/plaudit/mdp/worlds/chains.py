"""Worlds of a few states with known values: random walks, corridors, loops, traps for learners.

A random walk has no choice: it is an MDP with one action, since an MRP keeps only the expected
reward and samples of a walk need the reward of each step. `walk.under([0] * S)` is the MRP.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from plaudit.mdp.model import MDP
from plaudit.mdp.worlds.rules import Outcomes, check_least, check_probability, tabulated


def random_walk_5(*, gamma: float = 1.0) -> MDP:
    """A walk over A to E, left or right as likely; the right end pays 1. V(k) = k/6.

    Source: Sutton & Barto 2018, example 6.2.
    """
    return random_walk(
        num_states=5, left_reward=0.0, gamma=gamma, names=("left", *"ABCDE", "right")
    )


def random_walk_19(*, gamma: float = 1.0) -> MDP:
    """A walk over 19 states; the right end pays 1, the left end -1. V(k) = (k - 10) / 10.

    Source: Sutton & Barto 2018, example 7.1.
    """
    return random_walk(num_states=19, left_reward=-1.0, gamma=gamma)


def random_walk(
    *,
    num_states: int = 19,
    left_reward: float = -1.0,
    gamma: float = 1.0,
    names: tuple[str, ...] | None = None,
) -> MDP:
    """A walk over states 1 to n between two ends, 0 and n + 1; it begins in the middle."""
    check_least("num_states", num_states, 1)
    end = num_states + 1

    def outcomes(state: int, action: int) -> Outcomes[int]:
        if state in (0, end):
            return [(1.0, state, 0.0)]
        left = left_reward if state == 1 else 0.0
        return [(0.5, state - 1, left), (0.5, state + 1, 1.0 if state == end - 1 else 0.0)]

    return tabulated(
        range(end + 1),
        ["step"],
        outcomes,
        gamma,
        start={(end // 2): 1.0},
        name=lambda state: str(state) if names is None else names[state],
        grid=np.arange(end + 1)[None],
    )


def random_walk_1000(*, num_states: int = 1000, reach: int = 100, gamma: float = 1.0) -> MDP:
    """A walk over 1,000 states that jumps to any of the 100 neighbours on either side.

    Jumps beyond an end go to that end; the right end pays 1, the left one -1. It begins in 500.
    Source: Sutton & Barto 2018, example 9.1.
    """
    check_least("num_states", num_states, 2)
    check_least("reach", reach, 1)
    state = np.arange(1, num_states + 1)
    jump = np.concatenate([np.arange(-reach, 0), np.arange(1, reach + 1)])
    target = np.clip(state[:, None] + jump, 0, num_states + 1).ravel()
    source = np.repeat(state, jump.size)
    p = np.full(target.size, 0.5 / reach)
    ends = [0, num_states + 1]
    rows = sparse.coo_array(
        (np.append(p, [1.0, 1.0]), (np.append(source, ends), np.append(target, ends))),
        shape=(num_states + 2, num_states + 2),
    ).tocsr()
    of = np.repeat(np.arange(num_states + 2), np.diff(rows.indptr))
    paid = (rows.indices == num_states + 1).astype(float) - (rows.indices == 0)
    paid[of == rows.indices] = 0.0
    initial = np.zeros(num_states + 2)
    initial[num_states // 2] = 1.0
    reward = sparse.csr_array((paid, rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)
    return MDP(rows, reward, gamma, initial=initial, actions=["jump"])


def short_corridor(*, gamma: float = 1.0) -> MDP:
    """Three cells where left and right are swapped in the middle; a step costs 1.

    Among policies that cannot tell the cells apart the best goes right with probability
    2 - √2 = 0.5858 and is worth -11.6569. Source: Sutton & Barto 2018, example 13.1.
    """

    def outcomes(state: int, action: int) -> Outcomes[int]:
        if state == 3:
            return [(1.0, 3, 0.0)]
        right = (action == 1) != (state == 1)
        return [(1.0, state + 1 if right else max(state - 1, 0), -1.0)]

    return tabulated(
        range(4), ["left", "right"], outcomes, gamma, start={0: 1.0}, grid=np.arange(4)[None]
    )


def maximisation_bias(*, num_actions: int = 10, gamma: float = 1.0) -> MDP:
    """From A right ends at 0; left leads to B, whose many actions all pay -0.1 on average, s.d. 1.

    Going left is always wrong, but the greatest of noisy estimates says otherwise.
    Source: Sutton & Barto 2018, example 6.7 (with ten actions in B).
    """
    check_least("num_actions", num_actions, 2)

    def outcomes(state: str, action: int) -> Outcomes[str]:
        if state == "end":
            return [(1.0, "end", 0.0)]
        if state == "B":
            return [(1.0, "end", -0.1)]
        return [(1.0, "B" if action == 0 else "end", 0.0)] if action < 2 else []

    noise = np.zeros((3, num_actions))
    noise[1] = 1.0
    return tabulated(
        ["A", "B", "end"],
        ["left", "right", *(str(a) for a in range(2, num_actions))],
        outcomes,
        gamma,
        start={"A": 1.0},
        reward_std=noise,
    )


def puterman_2_state(*, gamma: float = 0.95) -> MDP:
    """Two states: wait for 5 or take 10 and be caught where each step costs 1. V* = (-8.5714, -20).

    Source: Puterman 2005, section 3.1.
    """

    def outcomes(state: int, action: int) -> Outcomes[int]:
        if state == 1:
            return [(1.0, 1, -1.0)] if action == 0 else []
        return [(0.5, 0, 5.0), (0.5, 1, 5.0)] if action == 0 else [(1.0, 1, 10.0)]

    return tabulated([0, 1], ["wait", "take"], outcomes, gamma, start={0: 1.0})


def two_state(*, leave: float = 0.3, back: float = 0.6, gamma: float = 0.9) -> MDP:
    """A chain of two states, of which the first pays 1; one action, values in closed form.

    V(0) = (1 - γ(1 - q)) / ((1 - γ)(1 - γ(1 - p - q))) for p = leave, q = back.
    Source: the 2×2 linear system V = R + γPV.
    """
    check_probability("leave", leave)
    check_probability("back", back)

    def outcomes(state: int, action: int) -> Outcomes[int]:
        away, paid = (leave, 1.0) if state == 0 else (back, 0.0)
        return [(1 - away, state, paid), (away, 1 - state, paid)]

    return tabulated([0, 1], ["step"], outcomes, gamma, start={0: 1.0})


def recycling_robot(
    *,
    alpha: float = 0.9,
    beta: float = 0.6,
    search_reward: float = 2.0,
    wait_reward: float = 1.0,
    gamma: float = 0.9,
) -> MDP:
    """A robot that searches, waits or recharges; a search on a low battery may end in a rescue at -3.

    Source: Sutton & Barto 2018, example 3.3 (its numbers are ours, the book leaves them open).
    """
    check_probability("alpha", alpha)
    check_probability("beta", beta)

    def outcomes(state: str, action: int) -> Outcomes[str]:
        if action == 1:
            return [(1.0, state, wait_reward)]
        if action == 2:
            return [(1.0, "high", 0.0)] if state == "low" else []
        if state == "high":
            return [(alpha, "high", search_reward), (1 - alpha, "low", search_reward)]
        return [(beta, "low", search_reward), (1 - beta, "high", -3.0)]

    actions = ["search", "wait", "recharge"]
    return tabulated(["high", "low"], actions, outcomes, gamma, start={"high": 1.0})


def river_swim(*, num_states: int = 6, gamma: float = 0.95) -> MDP:
    """Against the current to a great reward (10,000), or with it to a small one (5).

    Source: Strehl & Littman 2008, section 5.1.
    """
    check_least("num_states", num_states, 3)
    last = num_states - 1

    def outcomes(state: int, action: int) -> Outcomes[int]:
        if action == 0:
            return [(1.0, max(state - 1, 0), 5.0 if state == 0 else 0.0)]
        if state == 0:
            return [(0.7, 0, 0.0), (0.3, 1, 0.0)]
        if state == last:
            return [(0.7, last - 1, 0.0), (0.3, last, 10_000.0)]
        return [(0.1, state - 1, 0.0), (0.6, state, 0.0), (0.3, state + 1, 0.0)]

    return tabulated(
        range(num_states),
        ["left", "right"],
        outcomes,
        gamma,
        start={1: 0.5, 2: 0.5},
        grid=np.arange(num_states)[None],
    )


def slippery_chain(*, slip: float = 0.2, gamma: float = 0.99) -> MDP:
    """Five states: ahead towards 10 at the end, or back for 2 at once; either slips into the other.

    Source: Strens 2000, section 5 (after Dearden et al. 1998).
    """
    check_probability("slip", slip)

    def outcomes(state: int, action: int) -> Outcomes[int]:
        ahead = (min(state + 1, 4), 10.0 if state == 4 else 0.0)
        back = (0, 2.0)
        meant, other = (ahead, back) if action == 0 else (back, ahead)
        return [(1 - slip, *meant), (slip, *other)]

    return tabulated(range(5), ["ahead", "back"], outcomes, gamma, start={0: 1.0})


CHAIN_WORLDS: dict[str, Callable[..., MDP]] = {
    "random-walk-5": random_walk_5,
    "random-walk-19": random_walk_19,
    "random-walk-1000": random_walk_1000,
    "short-corridor": short_corridor,
    "maximisation-bias": maximisation_bias,
    "puterman-2-state": puterman_2_state,
    "two-state": two_state,
    "recycling-robot": recycling_robot,
    "river-swim": river_swim,
    "slippery-chain": slippery_chain,
}
