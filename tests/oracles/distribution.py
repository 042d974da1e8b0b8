"""Softmax distributions by loops over single numbers, with exact sums (math.fsum)."""

from __future__ import annotations

import math


def probabilities(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(z - top) for z in logits]
    total = math.fsum(weights)
    return [w / total for w in weights]


def entropy(logits: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities(logits) if p > 0)


def kl(logits: list[float], logits_ref: list[float]) -> float:
    p, q = probabilities(logits), probabilities(logits_ref)
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def kept_tokens(logits: list[float], top_k: int, top_p: float, min_p: float = 0.0) -> set[int]:
    """Tokens taken one after the other, likeliest first, then all ties of the last one taken."""
    order = sorted(range(len(logits)), key=lambda v: -logits[v])
    taken = order
    if 0 < top_k < len(logits):
        least = logits[order[top_k - 1]]
        taken = [v for v in order if logits[v] >= least]
    if min_p > 0:
        most = max(probabilities(logits))
        p = dict(enumerate(probabilities(logits)))
        taken = [v for v in taken if p[v] >= min_p * most]
    if top_p < 1:
        p = dict(zip(taken, probabilities([logits[v] for v in taken]), strict=True))
        nucleus: list[int] = []
        for v in taken:
            nucleus.append(v)
            if math.fsum(p[u] for u in nucleus) >= top_p:
                break
        taken = [v for v in taken if logits[v] >= logits[nucleus[-1]]]
    return set(taken)


def token_logprob(logits, token, temperature, top_k, top_p, min_p) -> tuple[float, float]:
    """(log-probability of the token, entropy) of the distribution it is scored under."""
    tempered = [z / temperature for z in logits]
    kept = sorted(kept_tokens(tempered, top_k, top_p, min_p) | {token})
    inside = [tempered[v] for v in kept]
    p = probabilities(inside)
    return math.log(p[kept.index(token)]), entropy(inside)
