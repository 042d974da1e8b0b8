"""Beliefs: what the agent knows of the state, updated exactly, and the decision process over them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.checks import check_distribution
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.records.errors import UserError


def belief_update(
    pomdp: POMDP, belief: ArrayLike, action: str | int, observation: str | int
) -> tuple[Floats, float]:
    """The belief after an action and what was then seen, and the probability of seeing it.

    b'(s') = O(o|a, s') Σ_s T(s'|s, a) b(s) / P(o|b, a): first T, then O where one arrives.
    belief [S]; action, observation by number or name. UserError if the observation cannot be seen
    there, or the belief is not a distribution.
    Source: Kaelbling, Littman & Cassandra 1998, section 3.3.
    Check: Σ_o P(o|b, a) b'_o is the belief that T alone predicts.
    """
    b = check_distribution(belief, pomdp.num_states, "belief")
    a, o = pomdp.action(action), pomdp.seen(observation)
    joint = _joint(pomdp, b, a)[:, o]
    probability = float(joint.sum())
    if probability == 0:
        raise UserError(
            f"observation {observation!r} cannot be seen after action {action!r} from this belief"
        )
    return joint / probability, probability


def _joint(pomdp: POMDP, belief: Floats, action: int) -> Floats:
    """P(s', o | b, a) as [S, Ω]."""
    predicted = belief @ pomdp.transition[action :: pomdp.num_actions]
    seen = pomdp.observation[action :: pomdp.num_actions].toarray()
    return np.asarray(predicted[:, None] * seen, dtype=np.float64)


def expanded_value(pomdp: POMDP, belief: ArrayLike, horizon: int) -> float:
    """V_t(b) of `horizon` steps by expanding the tree of all actions and observations: exact.

    V_t(b) = max_a [Σ_s b(s) R(s, a) + γ Σ_o P(o|b, a) V_{t-1}(b_ao)], V_0 = 0.
    It visits up to (A·|Ω|)^horizon beliefs, so it is for few steps. γ may be 1.
    Errors: a negative horizon, a belief that is not a distribution.
    Source: Kaelbling, Littman & Cassandra 1998, section 3.4.
    """
    if horizon < 0:
        raise UserError(f"horizon: {horizon}; expected 0 or more steps")
    return _expanded(pomdp, check_distribution(belief, pomdp.num_states, "belief"), horizon)


def _expanded(pomdp: POMDP, belief: Floats, horizon: int) -> float:
    if horizon == 0:
        return 0.0
    values = belief @ pomdp.reward
    if horizon > 1:
        for a in range(pomdp.num_actions):
            joint = _joint(pomdp, belief, a)
            for o in np.flatnonzero(joint.sum(0) > 0):
                p = joint[:, o].sum()
                values[a] += pomdp.gamma * p * _expanded(pomdp, joint[:, o] / p, horizon - 1)
    return float(values.max())
