"""Returns and advantages as forward sums over the steps that count, in plain float64 loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def _rows(mask):
    """For each row, the places that count: what is left when the others are deleted."""
    return [[t for t in range(mask.shape[1]) if mask[b, t]] for b in range(mask.shape[0])]


def discounted_return(reward, next_value, terminated, boundary, gamma, mask):
    """G_t as Σ_k γ^k r, walking forward until the episode is cut."""
    out = np.zeros(reward.shape)
    for b, places in enumerate(_rows(mask)):
        for start in range(len(places)):
            total = 0.0
            for k, t in enumerate(places[start:]):
                total += gamma**k * reward[b, t]
                if boundary[b, t] or t == places[-1]:
                    if not terminated[b, t]:
                        total += gamma ** (k + 1) * next_value[b, t]
                    break
            out[b, places[start]] = total
    return out


def gae(reward, value, next_value, terminated, boundary, gamma, lam, mask):
    """Σ_k (γλ)^k δ_{t+k}, walking forward until the episode is cut."""
    out = np.zeros(reward.shape)
    for b, places in enumerate(_rows(mask)):
        for start in range(len(places)):
            for k, t in enumerate(places[start:]):
                after = 0.0 if terminated[b, t] else next_value[b, t]
                error = reward[b, t] + gamma * after - value[b, t]
                out[b, places[start]] += (gamma * lam) ** k * error
                if boundary[b, t]:
                    break
    return out


def gae_from_n_step_returns(reward, value, next_value, terminated, boundary, gamma, lam, mask):
    """The λ-weighted mean of all n-step advantages; `next_value` must be the next step's value."""
    out = np.zeros(reward.shape)
    for b, places in enumerate(_rows(mask)):
        for start in range(len(places)):
            estimates = []  # estimates[n - 1] = the n-step return minus the value
            rewards = 0.0
            for k, t in enumerate(places[start:]):
                rewards += gamma**k * reward[b, t]
                tail = 0.0 if terminated[b, t] else gamma ** (k + 1) * next_value[b, t]
                estimates.append(rewards + tail - value[b, places[start]])
                if boundary[b, t] or t == places[-1]:
                    break
            last = len(estimates) - 1
            total = sum((1 - lam) * lam**n * estimates[n] for n in range(last))
            # The longest estimate takes all the weight that is left.
            out[b, places[start]] = total + lam**last * estimates[last]
    return out


def next_step_value(value, mask):
    out = np.zeros(value.shape)
    for b, places in enumerate(_rows(mask)):
        for here, after in pairwise(places):
            out[b, here] = value[b, after]
    return out
