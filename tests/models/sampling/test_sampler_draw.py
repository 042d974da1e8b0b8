"""Drawing from a distribution: exact frequencies, edges of the inverse CDF, attention products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.models.sampling.draw import draw, inverse_cdf, uniforms
from plaudit.models.sampling.packed import Packed, can_pack
from plaudit.records.sampling import Sampling

# The largest double below 1: what a generator of numbers in [0, 1) can at most return.
ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("sampling", "weights"),
    [
        # p ∝ 1, 2, 3, 4; at temperature 0.5 ∝ squares; top-k 2 keeps 3 and 4;
        # top-p 0.6: 0.4 falls short, so 3 crosses it and is kept; min-p 0.6: 2/4 falls short.
        (Sampling(max_new_tokens=1), [1, 2, 3, 4]),
        (Sampling(max_new_tokens=1, temperature=0.5), [1, 4, 9, 16]),
        (Sampling(max_new_tokens=1, top_k=2), [0, 0, 3, 4]),
        (Sampling(max_new_tokens=1, top_p=0.6), [0, 0, 3, 4]),
        (Sampling(max_new_tokens=1, temperature=0.5, top_k=3, top_p=0.6), [0, 0, 9, 16]),
        (Sampling(max_new_tokens=1, min_p=0.6), [0, 0, 3, 4]),
        (Sampling(max_new_tokens=1, temperature=0.5, min_p=0.2), [0, 4, 9, 16]),
        (Sampling(max_new_tokens=1, min_p=0.45, top_p=0.75), [0, 0, 3, 4]),
    ],
    ids=str,
)
def test_frequencies_and_log_probabilities_are_exact(
    sampling: Sampling, weights: list[int]
) -> None:
    num_draws = 40_000
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0]).log().expand(num_draws, 4)
    u = uniforms(11, [0], num_draws)[0]
    token, logp = draw(logits, u, sampling)
    p = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(logp.double(), p[token].log(), rtol=0, atol=1e-6)
    expected = num_draws * p
    count = token.bincount(minlength=4).double()
    assert not count[p == 0].any()
    kept = p > 0
    chi_square = float(((count - expected)[kept] ** 2 / expected[kept]).sum())
    # 99.99 % quantiles of chi-square with 1, 2, 3 degrees of freedom.
    assert chi_square < {1: 15.14, 2: 18.42, 3: 21.11}[int(kept.sum()) - 1]


def test_frequencies_over_a_vocabulary_of_many_blocks() -> None:
    """1,000 tokens of p ∝ 1 … 1000 in four blocks, against the exact CDF."""
    p = torch.arange(1, 1001, dtype=torch.float64)
    u = uniforms(3, [7], 20_000)[0]
    token = inverse_cdf(p.float().expand(len(u), -1), u)
    exact = np.searchsorted(np.cumsum(p.numpy()), u.numpy() * p.sum().item(), side="right")
    assert (token.numpy() == exact).all()


@settings(max_examples=200, deadline=None)
@given(
    size=st.sampled_from([1, 2, 255, 256, 257, 700]),
    seed=st.integers(0, 2**31),
    zeros=st.floats(0, 0.99),
    u=st.sampled_from([0.0, 1e-300, 0.5, 1 - 1e-7, ALMOST_ONE]),
    scale=st.sampled_from([1.0, 1e-30, 1e30]),
)
def test_a_token_of_weight_zero_is_never_drawn(
    size: int, seed: int, zeros: float, u: float, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(size, generator=generator) * scale
    p[torch.rand(size, generator=generator) < zeros] = 0.0
    p[int(torch.randint(size, (), generator=generator))] = scale
    token = int(inverse_cdf(p[None], torch.tensor([u], dtype=torch.float64)))
    positive = p.nonzero()[:, 0].tolist()
    assert token in positive
    if u == 0.0:
        assert token == positive[0]
    if u == ALMOST_ONE and float(p[positive[-1]] / p.double().sum()) > 1e-6:
        assert token == positive[-1]


def test_uniforms_of_a_row_are_its_own_stream() -> None:
    all_rows = uniforms(9, [0, 1, 2], 5)
    assert torch.equal(uniforms(9, [2], 3)[0], all_rows[2, :3])
    assert len(set(all_rows.flatten().tolist())) == 15
    expected = np.random.Generator(np.random.Philox(key=[9, 1])).random(5)
    assert all_rows[1].tolist() == expected.tolist()
    assert uniforms(2**64 - 1, [0], 1).shape == (1, 1)


@pytest.mark.parametrize("num_rows", [1, 16, 64, 300])
def test_packed_weights_multiply_in_full_precision(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(70, 90, generator=generator)
    bias, other = torch.randn(70, generator=generator), torch.randn(num_rows, 70)
    x = torch.randn(num_rows, 90, generator=generator)
    if not can_pack(weight):
        pytest.skip("this build of torch has no oneDNN")
    packed = Packed(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(packed(x).double(), exact, rtol=0, atol=3e-5)
    torch.testing.assert_close(packed.plus(x, other).double(), exact + other, rtol=0, atol=3e-5)
