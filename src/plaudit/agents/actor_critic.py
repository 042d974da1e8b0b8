"""The gradient of the advantage actor-critics, in step (`a2c`) or not (`a3c`), on a short rollout.

    L = mean over the steps of −log π(a|s)·A + value_coef·½(V − R)² − entropy_coef·H(π(·|s))

A by GAE (with lam 1 the n-step return less V), R = A + V, both held constant. On forty steps of a
small net autograd would cost more than the arithmetic, so nets are gone back through by hand, and
what lies between their outputs and L is written out: ∂L/∂V directly, ∂L/∂logits for one discrete
choice; other actions' part is left to autograd. Each net is applied once, to all it is needed for.

Source: Mnih et al. 2016 (1602.01783), algorithm S3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from plaudit.envs.rollout import Experience
from plaudit.nets.actions import ActorHead, Categorical
from plaudit.nets.control_nets import Net
from plaudit.nets.policies import ActorPolicy
from plaudit.ops.policy import score_function_loss

F32: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]


def objective(
    policy: ActorPolicy,
    critic: Net,
    seen: Experience,
    *,
    gamma: float,
    lam: float,
    value_coef: float,
    entropy_coef: float,
) -> tuple[dict[str, float], Callable[[], None]]:
    """Numbers of one rollout to log, and the way back: it adds L's gradient to the nets'."""
    judged, back_through_critic = critic.traced(seen.all_obs())
    value, next_value = seen.values_of(judged[:, 0])
    adv = advantages(
        seen.reward, value, next_value, seen.terminated, seen.boundary, seen.mask, gamma, lam
    )
    weight = seen.mask.ravel().astype(np.float32) / np.float32(max(1, seen.num_steps))

    params, back_through_policy = policy.net.traced(seen.obs.reshape(-1, *seen.obs.shape[2:]))
    action = seen.action.reshape(-1, *seen.action.shape[2:])
    of_head: list[Tensor] = []
    if isinstance(policy.head, Categorical):
        grad, gain, entropy = by_logits(params, action, adv.ravel(), weight, entropy_coef)
    else:
        grad, gain, entropy, of_head = by_autograd(
            policy.head, params, action, adv.ravel(), weight, entropy_coef
        )

    # V − R = −A at every step, since R = A + V.
    grad_value = np.zeros_like(judged)
    grad_value[: adv.size, 0] = -value_coef * weight * adv.ravel()
    error = 0.5 * float(np.dot(weight, adv.ravel() ** 2))

    def back() -> None:
        back_through_policy(grad)
        for own, of_own in zip(policy.head.parameters(), of_head, strict=True):
            own.grad = of_own
        back_through_critic(grad_value)

    return {"loss/policy": gain, "loss/value": error, "policy/entropy": entropy}, back


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def advantages(
    reward: F32,
    value: F32,
    next_value: F32,
    terminated: Bools,
    boundary: Bools,
    mask: Bools,
    gamma: float,
    lam: float,
) -> F32:
    """GAE of [B, T] as `ops.gae` defines it, in one pass; 0 off the mask."""
    out = np.zeros_like(reward)
    for row in range(reward.shape[0]):
        carried = 0.0
        for t in range(reward.shape[1] - 1, -1, -1):
            if not mask[row, t]:
                continue
            ahead = 0.0 if terminated[row, t] else gamma * next_value[row, t]
            own = reward[row, t] + ahead - value[row, t]
            carried = own if boundary[row, t] else own + gamma * lam * carried
            out[row, t] = carried
    return out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def by_logits(
    logits: F32, action: NDArray[np.int64], adv: F32, weight: F32, entropy_coef: float
) -> tuple[F32, float, float]:
    """Σ w·(−log π(a)·A − c·H) of one choice among A: its gradient in the logits [N, A], and the two
    sums Σ −w·log π(a)·A and Σ w·H.

    ∂(−log π(a)·A)/∂logit_b = A·(π_b − [a = b]);   ∂(−H)/∂logit_b = π_b·(log π_b + H)
    """
    grad = np.empty_like(logits)
    gain, total = 0.0, 0.0
    for i in range(logits.shape[0]):
        top = logits[i].max()
        z = 0.0
        for b in range(logits.shape[1]):
            z += np.exp(logits[i, b] - top)
        log_z = top + np.log(z)
        entropy = 0.0
        for b in range(logits.shape[1]):
            logp = logits[i, b] - log_z
            p = np.exp(logp)
            if p > 0.0:
                entropy -= p * logp
        gain -= weight[i] * (logits[i, action[i]] - log_z) * adv[i]
        total += weight[i] * entropy
        for b in range(logits.shape[1]):
            logp = logits[i, b] - log_z
            p = np.exp(logp)
            of_entropy = p * (logp + entropy) if p > 0.0 else 0.0
            chosen = 1.0 if action[i] == b else 0.0
            grad[i, b] = weight[i] * (adv[i] * (p - chosen) + entropy_coef * of_entropy)
    return grad, gain, total


def by_autograd(
    head: ActorHead, params: F32, action: NDArray[Any], adv: F32, weight: F32, entropy_coef: float
) -> tuple[F32, float, float, list[Tensor]]:
    """The same for any head, and the gradients of the parameters that the head has of its own."""
    leaf, w = torch.from_numpy(params).requires_grad_(), torch.from_numpy(weight)
    logp = head.logp(leaf, torch.from_numpy(action))
    gain = (w * score_function_loss(logp, torch.from_numpy(adv))).sum()
    entropy = (w * head.entropy(leaf)).sum()
    of_leaf, *of_head = torch.autograd.grad(
        gain - entropy_coef * entropy, [leaf, *head.parameters()]
    )
    return of_leaf.numpy(), gain.item(), entropy.item(), of_head
