"""What a learner answers, and all that it carries from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.learning.sampling import Words

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

STATE, ACTION, EPISODE_STEP, STEP = 0, 1, 2, 3
"""Places of `Walk.at`: where the run is, the action already chosen there (-1: none), steps taken in
this episode, steps taken in all."""


class Walk(NamedTuple):
    """What every learner carries, written in place by its kernel.

    q [S, A] (-inf where there is no action); visits [S, A], steps taken from each pair; rng, the
    generator's words; at [4], see `STATE`; so_far [1], the episode's rewards up to now.
    """

    q: Floats
    visits: Ints
    rng: Words
    at: Ints
    so_far: Floats


@dataclass(frozen=True)
class Learned:
    """What was learned, and all that is needed to go on.

    q [S, A] (-inf where there is no action), value [S] = max_a q, policy [S] its first greatest
    action; episode_return (sum of rewards, not discounted) and episode_length, one entry for each
    finished episode since the beginning; num_steps since the beginning.
    `walk` and `memory` are the learner's state: given back as `start`, with the same options, the
    run goes on as if it had not stopped, bit for bit.
    """

    method: str
    q: Floats
    value: Floats
    policy: Ints
    episode_return: Floats
    episode_length: Ints
    num_steps: int
    walk: Walk = field(repr=False)
    memory: tuple[Any, ...] = field(repr=False)


def learned(
    method: str,
    walk: Walk,
    memory: tuple[Any, ...],
    episode_return: Floats,
    episode_length: Ints,
) -> Learned:
    """The answer of a run that stands at `walk`; its arrays are frozen from here on."""
    for array in (*walk, *memory, episode_return, episode_length):
        array.flags.writeable = False
    value, policy = walk.q.max(axis=1), walk.q.argmax(axis=1)
    value.flags.writeable = policy.flags.writeable = False
    return Learned(
        method,
        walk.q,
        value,
        policy,
        episode_return,
        episode_length,
        int(walk.at[STEP]),
        walk,
        memory,
    )


def thawed(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies that may be written, in the same (named) tuple."""
    copies = [array.copy() for array in arrays]
    return type(arrays)(*copies) if hasattr(arrays, "_fields") else tuple(copies)
