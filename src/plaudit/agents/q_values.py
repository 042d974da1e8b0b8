"""Targets of action values and the loss of their errors, in NumPy.

Targets need no gradient, and that of the loss in the values is short enough to write down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from plaudit.envs.replay import Batch
from plaudit.nets.action_values import any_action
from plaudit.nets.actions import DuelingGreedy, Greedy
from plaudit.nets.policies import Policy

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

HEADS: dict[str, type[Greedy]] = {"plain": Greedy, "dueling": DuelingGreedy}


def q_values(policy: Policy[Greedy], obs: NDArray[Any]) -> F32:
    """Values of all actions [B, A] for observations [B, ...], without gradients."""
    params = torch.from_numpy(policy.net.infer(obs))
    head = policy.head
    values: F32 = (head.q_barred(params) if policy.net.num_barred else head.q(params)).numpy()
    return values


def traced_q_values(policy: Policy[Greedy], obs: NDArray[Any]) -> tuple[F32, Callable[[F32], None]]:
    """Values [B, A], and a function that takes a loss's gradient in them to the weights' `grad`."""
    params, back = policy.net.traced(obs)
    if not isinstance(policy.head, DuelingGreedy):
        return params, back
    of_head = policy.head.q_barred if policy.net.num_barred else policy.head.q
    values: F32 = of_head(torch.from_numpy(params)).numpy()

    def through_both(grad: F32) -> None:
        """q_a = v + adv_a − mean adv: v has a share in every value, the mean takes its own back."""
        of_value = grad.sum(1, keepdims=True)
        if policy.net.num_barred:  # the mean is over the allowed, and what is barred gets nothing
            of_mean = of_value / (params[:, 1:] != -np.inf).sum(1, keepdims=True, dtype=np.float32)
        else:
            of_mean = grad.mean(1, keepdims=True)
        back(np.concatenate([of_value, grad - of_mean], 1))

    return values, through_both


def epsilon_greedy(
    policy: Policy[Any], obs: NDArray[Any], epsilon: float, rng: np.random.Generator
) -> Ints:
    """Actions [B]: each copy tosses a coin of its own for any action or the best one.

    Two draws a copy whatever falls; the net is asked only where a coin says so. Where observations
    have a mask, any action is any of those allowed.
    """
    coin = rng.random(len(obs)) < epsilon
    num_actions = policy.head.spec.sizes[0]
    if policy.net.num_barred:
        anything = any_action(num_actions, policy.net.allowed(obs), rng)
    else:
        anything = rng.integers(num_actions, size=len(obs))
    return anything if coin.all() else np.where(coin, anything, policy.act(obs, None))


def q_target(batch: Batch, online: Policy[Greedy], target: Policy[Greedy]) -> F32:
    """reward + discount · max_a Q_target(next_obs, a), of shape [B].

    One net both chooses and values, so chance errors count as gains. Values of actions that the
    mask of next_obs does not allow are −inf (see `Net`), so neither target ever holds one. Source: Mnih et al. 2015.
    """
    best = q_values(target, batch.next_obs).max(1)
    goal: F32 = batch.reward + batch.discount * best
    return goal


def double_q_target(batch: Batch, online: Policy[Greedy], target: Policy[Greedy]) -> F32:
    """reward + discount · Q_target(next_obs, argmax_a Q(next_obs, a)), of shape [B].

    The net that learns chooses and the target values. Source: van Hasselt et al. 2016.
    """
    chosen = online.head.mode(online.net.infer(batch.next_obs))
    value = q_values(target, batch.next_obs)[np.arange(len(chosen)), chosen]
    goal: F32 = batch.reward + batch.discount * value
    return goal


TARGETS: dict[str, Callable[[Batch, Policy[Greedy], Policy[Greedy]], F32]] = {
    "q": q_target,
    "double_q": double_q_target,
}


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def huber_td(q: F32, action: Ints, target: F32, weight: F32) -> tuple[float, float, F32, F32]:
    """Mean of w·H(δ) with δ = Q(s, a) − target; H(δ) = δ²/2 within 1 and |δ| − ½ beyond.

    q [B, A], action, target and weight [B]. Returns the loss, the mean of Q(s, a), δ [B], and the
    loss's gradient in q [B, A], which is w·clip(δ, ±1)/B at the actions taken and 0 elsewhere.
    Source: Mnih et al. 2015, "error clipping"; Huber 1964.
    """
    num = len(action)
    delta = np.empty(num, np.float32)
    grad = np.zeros_like(q)
    loss, total = 0.0, 0.0
    for i in range(num):
        value = q[i, action[i]]
        d = value - target[i]
        size = abs(d)
        loss += weight[i] * (0.5 * d * d if size <= 1.0 else size - 0.5)
        total += value
        delta[i] = d
        grad[i, action[i]] = weight[i] * min(max(d, -1.0), 1.0) / num
    return loss / num, total / num, delta, grad
