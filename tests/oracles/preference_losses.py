"""Preference losses of one pair in plain floats, written from their papers and from nothing of ours.

x_w, x_l are summed log-ratios of the preferred and the other answer; m_w, m_l mean
log-probabilities; l_w, l_l summed log-probabilities; n_w, n_l lengths.
"""

from __future__ import annotations

import math


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def kl_two(p: float, q: float) -> float:
    """KL of (p, 1 − p) from (q, 1 − q)."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def dpo(x_w, x_l, beta, **_):
    p = math.exp(beta * x_w) / (math.exp(beta * x_w) + math.exp(beta * x_l))
    return -math.log(p)


def cdpo(x_w, x_l, beta, eps, **_):
    p = math.exp(beta * x_w) / (math.exp(beta * x_w) + math.exp(beta * x_l))
    return -(1 - eps) * math.log(p) - eps * math.log(1 - p)


def robust(x_w, x_l, beta, eps, **_):
    right, wrong = dpo(x_w, x_l, beta), dpo(x_l, x_w, beta)
    return ((1 - eps) * right - eps * wrong) / (1 - 2 * eps)


def ipo(x_w, x_l, beta, **_):
    return (x_w - x_l - 1 / (2 * beta)) ** 2


def ipo_mean(x_w, x_l, n_w, n_l, beta, **_):
    return (x_w / n_w - x_l / n_l - 1 / (2 * beta)) ** 2


def dpo_mean(x_w, x_l, n_w, n_l, beta, **_):
    return dpo(x_w / n_w, x_l / n_l, beta)


def hinge(x_w, x_l, beta, **_):
    return max(0.0, 1 - beta * x_w + beta * x_l)


def exo(x_w, x_l, beta, eps, **_):
    return kl_two(sigma(beta * (x_w - x_l)), 1 - eps)


def nca(x_w, x_l, beta, **_):
    return (
        math.log(1 + math.exp(-beta * x_w))
        + 0.5 * math.log(1 + math.exp(beta * x_w))
        + 0.5 * math.log(1 + math.exp(beta * x_l))
    )


def sppo(x_w, x_l, beta, **_):
    return (x_w - 0.5 / beta) ** 2 + (x_l + 0.5 / beta) ** 2


def apo_zero(x_w, x_l, beta, **_):
    return (1 - sigma(beta * x_w)) + sigma(beta * x_l)


def apo_down(x_w, x_l, beta, **_):
    return sigma(beta * x_w) + (1 - sigma(beta * x_w - beta * x_l))


def discopop(x_w, x_l, beta, tau, **_):
    rho = beta * (x_w - x_l)
    mixed = sigma(rho / tau)
    return math.log(1 + math.exp(-rho)) * (1 - mixed) + math.exp(-rho) * mixed


def bco(x_w, x_l, beta, delta, **_):
    return math.log(1 + math.exp(delta - beta * x_w)) + math.log(1 + math.exp(beta * x_l - delta))


def simpo(m_w, m_l, beta, gamma, **_):
    return math.log(1 + math.exp(gamma - beta * (m_w - m_l)))


def alpha_po(m_w, m_l, beta, gamma, alpha, **_):
    r_w, r_l = ((1 - math.exp(m) ** -alpha) / alpha for m in (m_w, m_l))
    return math.log(1 + math.exp(gamma - beta * (r_w - r_l)))


def orpo(m_w, m_l, beta, **_):
    p_w, p_l = math.exp(m_w), math.exp(m_l)
    odds = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
    return -m_w - beta * math.log(odds / (1 + odds))


def cpo(l_w, l_l, m_w, beta, alpha, **_):
    return math.log(1 + math.exp(-beta * (l_w - l_l))) - alpha * m_w


LOSSES = {
    f.__name__: f
    for f in (
        dpo, cdpo, robust, ipo, ipo_mean, dpo_mean, hinge, exo, nca, sppo, apo_zero, apo_down,
        discopop, bco, simpo, alpha_po, orpo, cpo,
    )
}  # fmt: skip
