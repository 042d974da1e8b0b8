"""The loss of the advantage actor-critics, in step (`a2c`) or not (`a3c`), on one short rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.envs.rollout import Experience
from plaudit.models.control_nets import Net
from plaudit.models.policies import ActorPolicy
from plaudit.ops.advantages import gae
from plaudit.ops.masks import aggregate
from plaudit.ops.policy import score_function_loss


def actor_critic_loss(
    policy: ActorPolicy,
    critic: Net,
    seen: Experience,
    *,
    gamma: float,
    lam: float,
    value_coef: float,
    entropy_coef: float,
) -> tuple[Tensor, dict[str, float]]:
    """Mean over the steps of −log π·A + value_coef·½(V − R)² − entropy_coef·H, and numbers to log.

    A by GAE (with lam 1 the n-step return less V), R = A + V; both are held constant. Each net is
    applied once, to all that it is needed for.
    Source: Mnih et al. 2016 (1602.01783), algorithm S3.
    """
    judged = critic(torch.from_numpy(seen.all_obs())).squeeze(-1)
    value, next_value = seen.values_of(judged.detach().numpy())
    mask = torch.from_numpy(seen.mask)
    adv = gae(
        torch.from_numpy(seen.reward),
        torch.from_numpy(value),
        torch.from_numpy(next_value),
        torch.from_numpy(seen.terminated),
        torch.from_numpy(seen.boundary),
        gamma=gamma,
        lam=lam,
        mask=mask,
    )
    ret = adv + torch.from_numpy(value)
    params = policy(torch.from_numpy(seen.obs).flatten(0, 1))
    logp = policy.head.logp(params, torch.from_numpy(seen.action).flatten(0, 1)).view(adv.shape)
    entropy = policy.head.entropy(params).view(adv.shape)
    error = 0.5 * (judged[: adv.numel()].view(adv.shape) - ret) ** 2

    count = mask.sum()
    actor_mean = aggregate(score_function_loss(logp, adv), mask, count)
    error_mean = aggregate(error, mask, count)
    entropy_mean = aggregate(entropy, mask, count)
    loss = actor_mean + value_coef * error_mean - entropy_coef * entropy_mean
    return loss, {
        "loss/policy": actor_mean.item(),
        "loss/value": error_mean.item(),
        "policy/entropy": entropy_mean.item(),
    }
