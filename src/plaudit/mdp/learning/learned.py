"""What prediction by samples answers, with all that is needed to go on from there bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]


class _ReadOnly:
    """A result whose arrays cannot be written: they may be where another run goes on from."""

    def __post_init__(self) -> None:
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False


@dataclass(frozen=True)
class Predicted(_ReadOnly):
    """The value of a policy as learned from episodes.

    value [S]: the estimate, 0 in terminal states; counts [S]: how often each was updated.
    trace [K, S]: the value after every `trace_every`-th episode, if that was asked for.
    rng: the generator after the last episode. Given as `start=` to the same function, the result
    of 50 episodes and then 50 more is that of 100.
    """

    value: Floats
    counts: Ints
    num_episodes: int
    num_steps: int
    rng: Words = field(repr=False)
    trace: Floats = field(repr=False)


@dataclass(frozen=True)
class Weighted(Predicted):
    """A prediction from another policy's episodes; weight [S] is Σ ρ of the returns averaged."""

    weight: Floats = field(repr=False)


@dataclass(frozen=True)
class LinearPredicted(_ReadOnly):
    """A value linear in features, v(s) = w·x(s), as learned from samples.

    weights [d]; value [S], 0 in terminal states; second [d]: the second weights of the gradient
    methods (zeros elsewhere); counts [S]: updates made from each state; trace [K, d]: the weights
    after every `trace_every`-th episode; rng: the generator after the last episode.
    """

    weights: Floats
    value: Floats
    counts: Ints
    num_episodes: int
    num_steps: int
    second: Floats = field(repr=False)
    rng: Words = field(repr=False)
    trace: Floats = field(repr=False)


@dataclass(frozen=True)
class LeastSquares(LinearPredicted):
    """The solution of LSTD and its two sums, A [d, d] and b [d] of A w = b."""

    matrix: Floats = field(repr=False)
    vector: Floats = field(repr=False)


@dataclass(frozen=True)
class MonteCarloControl(_ReadOnly):
    """Action values learned from whole episodes.

    q [S, A]: -inf where there is no action; policy [S]: greedy in q; counts [S, A]: returns
    averaged; weight [S, A]: the sum of their importance weights (the counts, on policy).
    num_cut: episodes that reached `max_steps` and counted with the rewards they had until then.
    """

    q: Floats
    policy: Ints
    counts: Ints
    num_episodes: int
    num_steps: int
    num_cut: int
    weight: Floats = field(repr=False)
    rng: Words = field(repr=False)

    @property
    def value(self) -> Floats:
        """[S]: q of the policy's action."""
        return np.asarray(self.q[np.arange(self.policy.size), self.policy])
