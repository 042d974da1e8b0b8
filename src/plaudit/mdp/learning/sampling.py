"""How a finite world is acted in: one draw of (next state, reward) from its table, compiled.

Random numbers are xoshiro256++ over a state of four 64-bit words that the caller holds, so that a
run can be saved at any step and continued bit for bit, and no global generator is touched.
Source: Blackman & Vigna 2021 (xoshiro256++); Steele et al. 2014 (splitmix64, for seeding).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]


class Table(NamedTuple):
    """A world as samplers read it.

    Row s·A + a holds `next_state` and `upto`, the running sum of its probabilities (the last is
    made exactly 1). `mean` is r(s, a, s') beside each transition, `std` the normal noise of each
    row (0: none). `start` and `start_upto` say where episodes begin. An episode ends on entering a
    `terminal` state.
    """

    indptr: Ints
    next_state: Ints
    upto: Floats
    mean: Floats
    std: Floats
    exists: NDArray[np.bool_]
    terminal: NDArray[np.bool_]
    start: Ints
    start_upto: Floats


def table_of(mdp: MDP) -> Table:
    """The sampling table of a world, made once for a run."""
    p = mdp.transition
    counts = np.diff(p.indptr).astype(np.int64)
    row = np.repeat(np.arange(counts.size), counts)
    indptr = p.indptr.astype(np.int64)
    upto = np.empty(p.data.size)
    running_sums(indptr, p.data, upto)
    mean = mdp.reward.ravel()[row] if mdp.reward_next is None else mdp.reward_next
    std = np.zeros(counts.size) if mdp.reward_std is None else mdp.reward_std.ravel().copy()
    start = np.flatnonzero(mdp.initial > 0)
    start_upto = np.cumsum(mdp.initial[start])
    start_upto[-1] = 1.0
    return Table(
        indptr,
        p.indices.astype(np.int64),
        upto,
        np.array(mean),  # never a read-only view: kernels are compiled once for what may be written
        std,
        np.ascontiguousarray(mdp.available),
        mdp.terminal.copy(),
        start,
        start_upto,
    )


@compiled
def running_sums(indptr: Ints, probability: Floats, upto: Floats) -> None:
    """The sum of each row so far, exactly 1 from its last positive entry on.

    Row by row, so that rounding does not grow with the table and no entry of 0 is ever drawn.
    """
    for row in range(indptr.size - 1):
        total, last = 0.0, -1
        for k in range(indptr[row], indptr[row + 1]):
            total += probability[k]
            upto[k] = total
            if probability[k] > 0.0:
                last = k
        if last >= 0:
            upto[last : indptr[row + 1]] = 1.0


def seeded(seed: int) -> Words:
    """The generator's four words from one seed (0 or more)."""
    given: object = seed
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 0:
        raise UserError(f"seed: {seed!r}; expected an integer of 0 or more")
    mask = (1 << 64) - 1
    state, words = int(seed) & mask, []
    for _ in range(4):
        state = (state + 0x9E3779B97F4A7C15) & mask
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        words.append(mixed ^ (mixed >> 31))
    return np.array(words, dtype=np.uint64)


@inlined
def random_word(rng: Words) -> np.uint64:
    """The next 64 random bits; `rng` moves on."""
    total = rng[0] + rng[3]
    result = ((total << np.uint64(23)) | (total >> np.uint64(41))) + rng[0]
    moved = rng[1] << np.uint64(17)
    rng[2] ^= rng[0]
    rng[3] ^= rng[1]
    rng[1] ^= rng[2]
    rng[0] ^= rng[3]
    rng[2] ^= moved
    rng[3] = (rng[3] << np.uint64(45)) | (rng[3] >> np.uint64(19))
    return np.uint64(result)


@inlined
def uniform(rng: Words) -> float:
    """A number of [0, 1) with 53 random bits."""
    return (random_word(rng) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def below(rng: Words, count: int) -> int:
    """An integer of 0 to count - 1, each as likely to within 2^-53."""
    return int(uniform(rng) * count)


@inlined
def normal(rng: Words) -> float:
    """A standard normal number (Box & Muller 1958, the cosine alone)."""
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(rng)))
    return float(radius * np.cos(2.0 * np.pi * uniform(rng)))


@inlined
def first_above(upto: Floats, begin: int, end: int, draw: float) -> int:
    """The first place of [begin, end) with upto > draw; halved while long, then read in order."""
    while end - begin > 8:
        middle = (begin + end) // 2
        if upto[middle - 1] <= draw:
            begin = middle
        else:
            end = middle
    while upto[begin] <= draw:
        begin += 1
    return begin


@inlined
def first_state(table: Table, rng: Words) -> int:
    """A state in which an episode begins."""
    return int(table.start[first_above(table.start_upto, 0, table.start.size, uniform(rng))])


@inlined
def step(table: Table, rng: Words, state: int, action: int) -> tuple[int, float]:
    """(next state, reward) for an action that exists in the state."""
    row = state * table.exists.shape[1] + action
    k = first_above(table.upto, table.indptr[row], table.indptr[row + 1], uniform(rng))
    reward = table.mean[k]
    if table.std[row] > 0.0:
        reward += table.std[row] * normal(rng)
    return table.next_state[k], reward


@inlined
def any_action(table: Table, rng: Words, state: int) -> int:
    """One of the actions that exist in the state, evenly."""
    count = table.exists.shape[1]
    action = below(rng, count)
    while not table.exists[state, action]:
        action = below(rng, count)
    return action


@inlined
def drawn_action(probability: Floats, rng: Words, state: int) -> int:
    """An action of the policy [S, A] in the state."""
    draw = uniform(rng)
    total, last = 0.0, 0
    for a in range(probability.shape[1]):
        if probability[state, a] > 0.0:
            last = a
            total += probability[state, a]
            if draw < total:
                return a
    return last


@inlined
def greedy_action(q: Floats, rng: Words, state: int) -> int:
    """The best action of q [S, A]; of equal ones each as likely. Missing actions hold -inf."""
    best, choice, ties = -np.inf, 0, 0
    for a in range(q.shape[1]):
        if q[state, a] > best:
            best, choice, ties = q[state, a], a, 1
        elif q[state, a] == best and best > -np.inf:
            ties += 1
            if below(rng, ties) == 0:
                choice = a
    return choice


@inlined
def epsilon_greedy(table: Table, q: Floats, epsilon: float, rng: Words, state: int) -> int:
    """With probability epsilon any action that exists, else the best of q."""
    if uniform(rng) < epsilon:
        return any_action(table, rng, state)
    return greedy_action(q, rng, state)
