"""Baird's counterexample: seven states and eight weights on which off-policy TD blows up.

States are drawn afresh from what the behaviour visits (all seven alike) at each step, in place of
one long path; the expectation of every update is the same.
Source: Baird 1995; Sutton & Barto 2018, sections 11.2 and 11.7, figures 11.2 and 11.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plaudit.mdp.learning.gradient_td import off_policy_td, tdc
from plaudit.mdp.learning.importance import ratios
from plaudit.mdp.learning.learned import LinearPredicted
from plaudit.mdp.model import MDP
from studies.curves import Floats

DASHED, SOLID = 0, 1


@dataclass(frozen=True)
class Counterexample:
    """The world, its features [7, 8], the policy (always solid), the behaviour, and the weights
    [8] to begin with. Every reward is 0, so v = 0."""

    mdp: MDP
    features: Floats
    policy: Floats
    behaviour: Floats
    start_weights: Floats


@dataclass(frozen=True)
class Course:
    """weights [K + 1, d] step by step; value_error [K + 1], √VE = the root mean square of v̂; and
    projected_error [K + 1], √PBE, both with all states alike."""

    weights: Floats
    value_error: Floats
    projected_error: Floats


@dataclass(frozen=True)
class System:
    """The sums that linear TD approaches, as expectations over what the behaviour visits.

    A = E[ρ x (x - γx')ᵀ], b = E[ρ R x], C = E[x xᵀ], B = E[ρ γ x' xᵀ], d × d and d.
    Source: Sutton & Barto 2018, equations 9.11 and 11.27 to 11.29.
    """

    matrix: Floats
    vector: Floats
    second_moment: Floats
    next_moment: Floats


def baird(*, gamma: float = 0.99) -> Counterexample:
    """The counterexample: dashed leads to one of the six upper states, solid to the seventh.

    The behaviour takes dashed with 6/7, so it visits all states alike.
    """
    transition = np.zeros((2, 7, 7))
    transition[DASHED, :, :6] = 1 / 6
    transition[SOLID, :, 6] = 1.0
    features = np.hstack([2 * np.eye(7), np.ones((7, 1))])
    features[6, 6:] = 1.0, 2.0
    policy, behaviour = np.tile([0.0, 1.0], (7, 1)), np.tile([6 / 7, 1 / 7], (7, 1))
    mdp = MDP(transition, np.zeros((7, 2)), gamma, actions=["dashed", "solid"])
    start = np.array([1.0, 1, 1, 1, 1, 1, 10, 1])
    return Counterexample(mdp, features, policy, behaviour, start)


def semi_gradient_course(*, num_steps: int = 1000, alpha: float = 0.01, seed: int = 0) -> Course:
    """Semi-gradient off-policy TD(0): the weights grow without end. Source: figure 11.2, left."""
    case = baird()
    learned = off_policy_td(
        case.mdp,
        case.policy,
        case.behaviour,
        case.features,
        num_episodes=num_steps,
        max_steps=1,
        alpha=alpha,
        seed=seed,
        start_weights=case.start_weights,
        trace_every=1,
    )
    return _course(case, learned.trace)


def gradient_course(
    learner: Callable[..., LinearPredicted] = tdc,
    *,
    num_steps: int = 1000,
    alpha: float = 0.005,
    beta: float = 0.05,
    seed: int = 0,
) -> Course:
    """TDC (figure 11.5, left) or `gtd2`: the projected error falls, the value error hardly."""
    case = baird()
    learned = learner(
        case.mdp,
        case.policy,
        case.behaviour,
        case.features,
        num_episodes=num_steps,
        max_steps=1,
        alpha=alpha,
        beta=beta,
        seed=seed,
        start_weights=case.start_weights,
        trace_every=1,
    )
    return _course(case, learned.trace)


def expected_semi_gradient_course(*, num_sweeps: int = 1000, alpha: float = 0.01) -> Course:
    """The expectation of semi-gradient TD(0): w ← w + α (b - A w), which diverges all the same.

    Source: figure 11.2, right.
    """
    case = baird()
    system = system_of(case)
    rows, w = [], case.start_weights.copy()
    for _ in range(num_sweeps):
        w = w + alpha * (system.vector - system.matrix @ w)
        rows.append(w)
    return _course(case, np.array(rows))


def expected_tdc_course(
    *, num_sweeps: int = 1000, alpha: float = 0.005, beta: float = 0.05
) -> Course:
    """The expectation of TDC. Source: figure 11.5, right."""
    case = baird()
    step, shift = expected_tdc(case, alpha, beta)
    joint = np.concatenate([case.start_weights, np.zeros(8)])
    rows = []
    for _ in range(num_sweeps):
        joint = step @ joint + shift
        rows.append(joint[:8])
    return _course(case, np.array(rows))


def expected_tdc(case: Counterexample, alpha: float, beta: float) -> tuple[Floats, Floats]:
    """One expected step of TDC on (w, h) as a matrix [2d, 2d] and a shift [2d].

    w ← w + α (b - A w - B h),  h ← h + β (b - A w - C h).
    """
    system = system_of(case)
    identity = np.eye(system.vector.size)
    step = np.block(
        [
            [identity - alpha * system.matrix, -alpha * system.next_moment],
            [-beta * system.matrix, identity - beta * system.second_moment],
        ]
    )
    return step, np.concatenate([alpha * system.vector, beta * system.vector])


def system_of(case: Counterexample) -> System:
    """The system of the counterexample, all states alike."""
    x, share = case.features, 1 / case.mdp.num_states
    ratio = ratios(case.mdp, case.policy, case.behaviour)
    weight = share * case.behaviour * ratio
    ahead = (case.mdp.dense().transpose(1, 0, 2) * weight[:, :, None]).sum(1)
    matrix = x.T @ (np.diag(weight.sum(1)) - case.mdp.gamma * ahead) @ x
    vector = x.T @ (weight * case.mdp.reward).sum(1)
    return System(matrix, vector, share * x.T @ x, case.mdp.gamma * (x.T @ ahead.T @ x))


def _course(case: Counterexample, trace: Floats) -> Course:
    weights = np.vstack([case.start_weights, trace])
    system = system_of(case)
    value = weights @ case.features.T
    gap = system.vector - weights @ system.matrix.T
    inverse = np.linalg.pinv(system.second_moment)
    projected = np.einsum("ki,ij,kj->k", gap, inverse, gap)
    return Course(weights, np.sqrt((value**2).mean(1)), np.sqrt(np.maximum(projected, 0.0)))
