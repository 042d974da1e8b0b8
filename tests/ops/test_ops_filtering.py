"""The sampling distribution: which tokens may be drawn, ties included."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import distribution
from plaudit import ops
from plaudit.ops import filtering

# Small whole numbers make ties common; thirds keep cumulative sums away from the threshold.
logit_lists = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)
top_ks, top_ps = st.integers(0, 10), st.sampled_from([1 / 3, 0.6180339887, 0.877, 0.9871, 1.0])
min_ps = st.sampled_from([0.0, 1e-4, 0.03, 0.2, 0.55, 1.0])  # none a power of e


def t(values):
    return torch.tensor(values, dtype=torch.float64)


@given(logit_lists, top_ks, top_ps, min_ps)
def test_the_kept_set_is_that_of_taking_tokens_one_by_one(logits, top_k, top_p, min_p):
    keep = ops.keep_mask(t(logits), top_k=top_k, top_p=top_p, min_p=min_p)
    kept = distribution.kept_tokens(logits, top_k, top_p, min_p)
    assert set(keep.nonzero().flatten().tolist()) == kept


@given(logit_lists, top_ks, top_ps, min_ps, st.randoms(use_true_random=False))
def test_the_order_of_token_ids_is_irrelevant(logits, top_k, top_p, min_p, random):
    order = list(range(len(logits)))
    random.shuffle(order)
    keep = ops.keep_mask(t(logits), top_k=top_k, top_p=top_p, min_p=min_p)
    shuffled = ops.keep_mask(t(logits)[order], top_k=top_k, top_p=top_p, min_p=min_p)
    assert torch.equal(shuffled, keep[order])


def test_by_hand():
    # Probabilities ½, ¼, ⅛, ⅛.
    logits = t([0.5, 0.25, 0.125, 0.125]).log()

    def keep(top_k, top_p, min_p=0.0):
        return ops.keep_mask(logits, top_k=top_k, top_p=top_p, min_p=min_p).int().tolist()

    assert keep(0, 1.0) == [1, 1, 1, 1]
    assert keep(0, 0.4) == [1, 0, 0, 0]
    assert keep(0, 0.6) == [1, 1, 0, 0]  # the token that crosses the threshold is included
    assert keep(0, 0.8) == [1, 1, 1, 1]  # the third crosses; the fourth ties with it
    assert keep(1, 1.0) == [1, 0, 0, 0]
    assert keep(3, 1.0) == [1, 1, 1, 1]  # a tie at the third place
    # Top-k first: of ½ and ¼ renormalised to ⅔ and ⅓, the first alone has 0.65.
    assert keep(2, 0.65) == [1, 0, 0, 0]
    assert keep(0, 0.65) == [1, 1, 0, 0]
    assert keep(9, 1.0) == [1, 1, 1, 1]
    assert keep(0, 1.0, 0.3) == [1, 1, 0, 0]  # ¼ of the largest falls short
    assert keep(0, 1.0, 0.2) == [1, 1, 1, 1]
    assert keep(0, 1.0, 1.0) == [1, 0, 0, 0]
    # Min-p first: of ½ and ¼ renormalised to ⅔ and ⅓, the first alone has 0.65.
    assert keep(0, 0.65, 0.3) == [1, 0, 0, 0]
    assert keep(0, 0.65, 0.2) == [1, 1, 0, 0]


def test_the_temperature_comes_before_min_p():
    # Ratios to the largest ½ and ¼ at temperature 1; at temperature 2 their roots 0.71 and ½.
    logits = t([0.5, 0.25, 0.125]).log()
    assert ops.filtered_logits(logits, min_p=0.4).isfinite().tolist() == [True, True, False]
    warm = ops.filtered_logits(logits, temperature=2.0, min_p=0.4)
    assert warm.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 0.01, 3.0])
def test_a_nucleus_wider_than_the_first_look_is_found(scale, monkeypatch):
    torch.manual_seed(0)
    logits = scale * torch.randn(3, 5000)
    logits[1] *= 10  # one row has a small nucleus, the others a wide one
    keep = ops.keep_mask(logits, top_k=0, top_p=0.9)
    monkeypatch.setattr(filtering, "_NUCLEUS_GUESS", 5000)
    assert torch.equal(keep, ops.keep_mask(logits, top_k=0, top_p=0.9))
    mass = torch.where(keep, logits.softmax(-1), 0).sum(-1)
    assert (mass >= 0.9 - 1e-5).all()
    if scale == 0.0:
        assert keep.all()  # all tie
    else:
        without_least = logits.masked_fill(~keep, math.inf).argmin(-1, keepdim=True)
        kept_mass = mass - logits.softmax(-1).gather(-1, without_least).squeeze(-1)
        assert (kept_mass < 0.9 + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_dtype_and_batch_shape(dtype):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 50).to(dtype)
    keep = ops.keep_mask(logits, top_k=20, top_p=0.7, min_p=0.05)
    assert keep.shape == logits.shape
    for i in range(2):
        for j in range(3):
            alone = ops.keep_mask(logits[i, j], top_k=20, top_p=0.7, min_p=0.05)
            assert torch.equal(keep[i, j], alone)
    best = logits.argmax(-1, keepdim=True)
    assert keep.gather(-1, best).all()
    assert (keep.sum(-1) < 50).all()


def test_filtered_logits_divide_then_drop_but_never_the_drawn_token():
    logits = t([2.0, 1.0, 0.0, -4.0])
    got = ops.filtered_logits(logits, temperature=2.0, top_k=2)
    assert got.tolist() == [1.0, 0.5, -math.inf, -math.inf]
    got = ops.filtered_logits(logits, torch.tensor(3), temperature=2.0, top_k=2)
    assert got.tolist() == [1.0, 0.5, -math.inf, -2.0]


def test_the_temperature_comes_before_the_nucleus():
    # Probabilities ½, ¼, ¼ at temperature 1; at temperature ½ their squares: ⅔, ⅙, ⅙.
    logits = t([0.5, 0.25, 0.25]).log()
    assert ops.filtered_logits(logits, temperature=1.0, top_p=0.6).isfinite().all()
    cold = ops.filtered_logits(logits, temperature=0.5, top_p=0.6)
    assert cold.isfinite().tolist() == [True, False, False]


@pytest.mark.parametrize(("top_k", "top_p"), [(-1, 1.0), (0, 0.0), (0, 1.5), (0, math.nan)])
def test_filters_that_make_no_sense_are_refused(top_k, top_p):
    with pytest.raises(ValueError, match="top_"):
        ops.keep_mask(t([0.0, 1.0]), top_k=top_k, top_p=top_p)


@pytest.mark.parametrize("min_p", [-0.1, 1.1, math.nan])
def test_a_share_of_the_most_likely_that_makes_no_sense_is_refused(min_p):
    h, w = torch.zeros(1, 2), torch.zeros(3, 2)
    with pytest.raises(ValueError, match="min_p"):
        ops.keep_mask(t([0.0, 1.0]), top_k=0, top_p=1.0, min_p=min_p)
    with pytest.raises(ValueError, match="min_p"):
        ops.token_logprobs(h, w, torch.zeros(1, dtype=torch.int64), min_p=min_p)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_do_not_divide_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be a positive"):
        ops.filtered_logits(t([0.0, 1.0]), temperature=temperature)
