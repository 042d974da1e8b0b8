"""Slow definitions for prediction by samples: everything recomputed from whole episodes.

An episode is (states S_0 to S_T, rewards R_1 to R_T); the last state is terminal.
"""

from __future__ import annotations

import itertools

import numpy as np


def lambda_returns(value, states, rewards, gamma, lam, horizon):
    """G^λ of t = 0 to horizon - 1 from n-step returns, cut at the horizon: equations 12.9, 12.3."""
    out = np.zeros(horizon)
    for t in range(horizon):
        n_step = []
        for n in range(1, horizon - t + 1):
            paid = sum(gamma**k * rewards[t + k] for k in range(n))
            n_step.append(paid + gamma**n * value[states[t + n]])
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, horizon - t)]
        weights.append(lam ** (horizon - t - 1))
        out[t] = float(np.dot(weights, n_step))
    return out


def online_lambda_return(value, states, rewards, gamma, lam, alpha):
    """The online λ-return algorithm: at each step all updates of the episode are made anew.

    van Seijen et al. 2016: G of step t cut at horizon h bootstraps at step t + n from
    the value that was current at time t + n - 1.
    """
    start = value.copy()
    current = [start.copy()]  # the value after each time, V_0 to V_h
    for h in range(1, len(rewards) + 1):
        v = start.copy()
        for t in range(h):
            target = 0.0
            for n in range(1, h - t + 1):
                paid = sum(gamma**k * rewards[t + k] for k in range(n))
                estimate = paid + gamma**n * current[t + n - 1][states[t + n]]
                weight = lam ** (n - 1) * (1 - lam if n < h - t else 1)
                target += weight * estimate
            v[states[t]] += alpha * (target - v[states[t]])
        current.append(v)
    return current[-1]


def td_lambda(value, states, rewards, gamma, lam, alpha, *, replacing):
    """TD(λ) with a trace for every state, nothing dropped."""
    v, z = value.copy(), np.zeros(value.size)
    for t, reward in enumerate(rewards):
        s, after = states[t], states[t + 1]
        z *= gamma * lam
        z[s] = 1.0 if replacing else z[s] + 1.0
        v += alpha * (reward + gamma * v[after] - v[s]) * z
    return v


def return_variance(transition, reward_next, gamma, value):
    """Variance of the return [S]: E[G²] = Σ p (r² + 2γ r V' + γ² E[G'²]) solved. Sobel 1982.

    transition [S, S] with terminal states that stay unpaid; reward_next [S, S].
    """
    paid = (transition * (reward_next**2 + 2 * gamma * reward_next * value[None, :])).sum(1)
    going = ~(np.diag(transition) == 1.0)
    second = np.zeros(value.size)
    inner = transition[np.ix_(going, going)]
    second[going] = np.linalg.solve(np.eye(going.sum()) - gamma**2 * inner, paid[going])
    return second - value**2


def every_path(transition, reward, terminal, start, policy, steps):
    """All paths of at most `steps` steps that end: (probability, states, actions, rewards).

    transition [A, S, S], reward [S, A], policy [S, A].
    """
    paths, open_paths = [], [(1.0, (start,), (), ())]
    for _ in range(steps):
        longer = []
        for p, states, actions, rewards in open_paths:
            s = states[-1]
            for a, after in itertools.product(range(policy.shape[1]), range(terminal.size)):
                q = p * policy[s, a] * transition[a, s, after]
                if q > 0:
                    path = (q, (*states, after), (*actions, a), (*rewards, reward[s, a]))
                    (paths if terminal[after] else longer).append(path)
        open_paths = longer
    assert not open_paths, "a path does not end in so many steps"
    return paths


def visits(transition, initial, terminal):
    """Expected visits to each state in an episode [S]: η = initial + η P over states that go on."""
    going = ~terminal
    out = np.zeros(initial.size)
    inner = transition[np.ix_(going, going)]
    out[going] = np.linalg.solve(np.eye(going.sum()) - inner.T, initial[going])
    return out
