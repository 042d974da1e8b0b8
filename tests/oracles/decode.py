"""Answers scored and drawn the slow way: a whole forward for every token, no cache, one row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def next_probabilities(
    model: Any,
    ids: list[int],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """The distribution of the next token [V], float64, filters by explicit sorting and a loop."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    scores = (logits / (temperature or 1.0)).tolist()
    order = sorted(range(len(scores)), key=lambda v: -scores[v])
    if top_k:
        order = [v for v in order if scores[v] >= scores[order[min(top_k, len(order)) - 1]]]
    order = [v for v in order if math.exp(scores[v] - scores[order[0]]) >= min_p]
    mass = [math.exp(scores[v] - scores[order[0]]) for v in order]
    total = math.fsum(mass)
    out = torch.zeros(len(scores), dtype=torch.float64)
    reached = 0.0
    for v, m in zip(order, mass, strict=True):
        if reached >= top_p:
            break
        out[v] = m / total
        reached += m / total
    return out / out.sum()


def draw_row(
    model: Any,
    prompt: list[int],
    *,
    seed: int,
    row: int,
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[list[int], list[float], float]:
    """One answer, its log-probabilities, and how near a draw came to a boundary of the CDF.

    The uniform numbers are the Philox stream of key (seed, row). A nearness under float rounding
    means that another order of summation may rightly draw the neighbour.
    """
    u = np.random.Generator(np.random.Philox(key=[seed, row])).random(max_new_tokens)
    answer: list[int] = []
    logp: list[float] = []
    nearness = 1.0
    for t in range(max_new_tokens):
        p = next_probabilities(
            model,
            prompt + answer,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        )
        if temperature == 0:
            token = int(p.argmax())
        else:
            edges = np.cumsum(p.numpy())
            nearness = min(nearness, float(np.abs(edges - u[t]).min()))
            token = int(np.searchsorted(edges, u[t] * edges[-1], side="right"))
        answer.append(token)
        logp.append(math.log(float(p[token])))
        if token in stop_ids:
            break
    return answer, logp, nearness
