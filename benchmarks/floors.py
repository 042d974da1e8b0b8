"""Times below which nothing on this machine can be: matrix products and bytes at measured rates.

A benchmark prints `time ÷ floor` beside a time, so that it says how much could still be won. Each
product goes to the fastest of the libraries at hand (torch's own, oneDNN, oneDNN with its weights
packed beforehand), one weight after the other as a model runs them, so that weights that do not fit
into the cache are read from memory here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from machine import best_seconds
from plaudit.models.sampling.packed import Linear, can_pack
from plaudit.models.sampling.packed import linear as packed
from plaudit.ops.products import product

Multiply = Callable[[Tensor, Tensor], Tensor]


def layer_weights(layers: Sequence[Any]) -> list[Tensor]:
    """Weights of layers as Llama and its kin name them; query, key and value as one."""
    found: list[Tensor] = []
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        rest = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        found += [torch.cat([w.detach() for w in qkv]), *(m.weight.detach() for m in rest)]
    return found


@torch.no_grad()
def forward_seconds(weights: Sequence[Tensor], rows: int, *, repeats: int = 3) -> float:
    """Every weight [M, K] times inputs [rows, K], and nothing else."""
    inputs = _vectors(rows, {w.shape[1] for w in weights}, weights[0])

    def run(multiply: Multiply, parts: Sequence[Tensor]) -> None:
        for w in parts:
            multiply(inputs[w.shape[1]], w)

    def run_packed() -> None:
        for m, width in maps:
            m(inputs[width])

    maps: list[tuple[Linear, int]] = []
    found = [_fastest(run, weights, repeats)]
    if all(can_pack(w) for w in weights):
        maps = [(packed(w), w.shape[1]) for w in weights]
        found.append(best_seconds(run_packed, repeats=repeats))
    return min(found)


@torch.no_grad()
def input_gradient_seconds(weights: Sequence[Tensor], rows: int, *, repeats: int = 3) -> float:
    """Gradients [rows, M] of every weight's outputs times the weight: those of its inputs."""
    grads = _vectors(rows, {part.shape[0] for w in weights for part in _parts([w])}, weights[0])
    grads |= _vectors(rows, {w.shape[0] for w in weights}, weights[0])

    def run(multiply: Multiply, parts: Sequence[Tensor]) -> None:
        for w in parts:
            multiply(grads[w.shape[0]], w.T)

    return _fastest(run, weights, repeats)


@torch.no_grad()
def weight_gradient_seconds(weights: Sequence[Tensor], rows: int, *, repeats: int = 3) -> float:
    """Gradients [rows, M] of every weight's outputs times its inputs [rows, K]: the weight's."""
    widths = {n for w in [*weights, *_parts(weights)] for n in w.shape}
    vectors = _vectors(rows, widths, weights[0])

    def run(multiply: Multiply, parts: Sequence[Tensor]) -> None:
        for w in parts:
            multiply(vectors[w.shape[0]].T, vectors[w.shape[1]].T)

    return _fastest(run, weights, repeats)


def _fastest(
    run: Callable[[Multiply, Sequence[Tensor]], None], weights: Sequence[Tensor], repeats: int
) -> float:
    """By torch and by oneDNN, of whole weights and, where one is large, of its parts."""
    parts = _parts(weights)
    ways = [weights, parts] if len(parts) > len(weights) else [weights]
    return min(
        best_seconds(lambda way=way, multiply=multiply: run(multiply, way), repeats=repeats)
        for way in ways
        for multiply in (F.linear, product)
    )


def _parts(weights: Sequence[Tensor]) -> list[Tensor]:
    """Weights in parts of as many outputs as keep a product's result in the cache."""
    return [part for w in weights for part in w.split(4096)]


def _vectors(rows: int, widths: set[int], like: Tensor) -> dict[int, Tensor]:
    how = {"dtype": like.dtype, "device": like.device}
    return {width: torch.randn(rows, width, **how) for width in widths}
