"""What lies between the products of a decode step, against the same in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plaudit.models.sampling import kernels

BLOCK = kernels.BLOCK


def blocks_of(keys: np.ndarray) -> np.ndarray:
    """Keys [..., positions, D] in blocks of positions, flat."""
    *lead, room, dim = keys.shape
    cut = keys.reshape(*lead, room // BLOCK, BLOCK, dim)
    return np.ascontiguousarray(np.swapaxes(cut, -1, -2)).reshape(-1)


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dim", [32, 96])
def test_attention_over_shared_prompts_and_own_tokens_is_one_softmax(group: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    heads, scale, half = 2, 0.3, dim // 2
    lengths, of_prompt = np.array([1, 33, 16]), np.array([2, 0, 2, 1, 2, 2, 1])
    counts, num = np.array([0, 5, 15, 16, 30, 7, 3]), len(of_prompt)
    slot = np.array([6, 0, 9, 2, 3, 8, 1])
    prompt_room, room, slots = 48, 32, 10

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    prompt_keys, prompt_values = (some(3, heads, prompt_room, dim) for _ in range(2))
    keys, values = (some(slots, heads, room, dim) for _ in range(2))
    for cache in (keys, values):  # what no row has written yet may be anything
        for row in range(num):
            cache[slot[row], :, counts[row] :] = np.nan
    qkv, angle = some(num, heads, group + 2, dim), rng.uniform(0, 6, (num, half))
    cosine, sine = (f(angle).astype(np.float32) for f in (np.cos, np.sin))
    out = np.full((num, heads, group, dim), np.nan, np.float32)
    order = np.argsort(of_prompt, kind="stable")
    starts = np.searchsorted(of_prompt[order], np.arange(4))
    flat_keys, flat_values = blocks_of(keys), values.copy().reshape(-1)
    kernels.attend(
        qkv.copy().reshape(-1),
        cosine.reshape(-1),
        sine.reshape(-1),
        scale,
        order,
        starts,
        np.arange(3),
        lengths,
        blocks_of(prompt_keys),
        prompt_values.reshape(-1),
        slot,
        counts,
        flat_keys,
        flat_values,
        (heads, group, dim, prompt_room, room),
        out.reshape(-1),
    )
    turn = np.exp(1j * angle)
    for row in range(num):
        halves = qkv[row, :, :-1].astype(np.float64)
        turned = (halves[..., :half] + 1j * halves[..., half:]) * turn[row]
        turned = np.concatenate([turned.real, turned.imag], -1)
        n, length, p = counts[row], lengths[of_prompt[row]], of_prompt[row]
        own = keys[slot[row], :, :n], values[slot[row], :, :n]
        k = np.concatenate([prompt_keys[p, :, :length], own[0], turned[:, -1:]], 1)
        v = np.concatenate([prompt_values[p, :, :length], own[1], qkv[row, :, -1:]], 1)
        weight = np.exp(scale * np.einsum("hgd,htd->hgt", turned[:, :-1], k))
        weight /= weight.sum(-1, keepdims=True)
        expected = np.einsum("hgt,htd->hgd", weight, v)
        np.testing.assert_allclose(out[row], expected, rtol=0, atol=1e-5)
        kept = flat_keys.reshape(slots, heads, room // BLOCK, dim, BLOCK)[slot[row]]
        np.testing.assert_allclose(kept[:, n // BLOCK, :, n % BLOCK], turned[:, -1], atol=3e-6)
        assert np.array_equal(
            flat_values.reshape(values.shape)[slot[row], :, n], qkv[row, :, group + 1]
        )


@pytest.mark.parametrize("width", [16, 48, 576])
def test_norm(width: int) -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((5, width)) * [[1e-4], [1.0], [1e3], [0.0], [30.0]]).astype(np.float32)
    weight, out = rng.standard_normal(width).astype(np.float32), np.empty_like(x)
    kernels.normed(x.reshape(-1), weight, 1e-5, out.reshape(-1))
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-12)


def test_gating_is_right_to_rounding_for_small_and_large_numbers() -> None:
    gate = torch.cat([torch.linspace(-85, 120, 4 * 480), torch.logspace(-30, 2, 4 * 16)])
    gate = gate.reshape(8, -1)
    up = torch.randn(gate.shape, generator=torch.Generator().manual_seed(0))
    both = torch.cat([gate, up], 1).numpy().copy()
    kernels.gated(both.reshape(-1), gate.shape[1])
    found = both.reshape(-1)[: gate.numel()].reshape(gate.shape)
    expected = torch.nn.functional.silu(gate.double()) * up.double()
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6, atol=1e-30)


def test_a_score_far_above_the_others_takes_all_the_weight() -> None:
    """Exponentials of what is 87 and more below the largest are as good as nothing, and no NaN."""
    dim, room = 32, 16
    qkv = np.zeros((1, 1, 3, dim), np.float32)
    qkv[..., 0, 0] = 1.0
    keys, values = np.zeros((1, 1, room, dim), np.float32), np.zeros((1, 1, room, dim), np.float32)
    keys[0, 0, 0, 0], values[0, 0, :2, 0] = 1e4, [3.0, 5.0]
    out = np.empty(dim, np.float32)
    one, nothing = np.ones(dim // 2, np.float32), np.zeros(dim // 2, np.float32)
    first, zero = np.array([0, 1]), np.array([0])
    sizes, both = (1, 1, dim, room, room), np.array([2])
    kernels.attend(
        qkv.reshape(-1), one, nothing, 1.0, zero, first, zero, both, blocks_of(keys),
        values.reshape(-1), zero, zero, blocks_of(np.zeros_like(keys)),
        np.zeros(room * dim, np.float32), sizes, out,
    )  # fmt: skip
    assert out[0] == pytest.approx(3.0, rel=1e-6)
