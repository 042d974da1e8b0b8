"""Divergences and entropy: exact sums, estimators on average, and hard corners."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import distribution
from plaudit import ops

logit_lists = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-8, 8), min_size=n, max_size=n)] * 2)
)


def t(values):
    return torch.tensor(values, dtype=torch.float64)


@given(logit_lists)
def test_exact_kl_and_entropy_agree_with_loops(both):
    logits, ref = both
    assert ops.kl_exact(t(logits), t(ref)).item() == pytest.approx(
        distribution.kl(logits, ref), abs=1e-9
    )
    assert ops.entropy(t(logits)).item() == pytest.approx(distribution.entropy(logits), abs=1e-9)


@given(logit_lists)
def test_k1_and_k3_are_unbiased_as_values(both):
    logits, ref = t(both[0]), t(both[1])
    p, logp, logp_ref = logits.softmax(-1), logits.log_softmax(-1), ref.log_softmax(-1)
    exact = distribution.kl(*both)
    assert (p * ops.kl_k1(logp, logp_ref)).sum().item() == pytest.approx(exact, abs=1e-9)
    assert (p * ops.kl_k3(logp, logp_ref)).sum().item() == pytest.approx(exact, abs=1e-9)
    assert (ops.kl_k3(logp, logp_ref) >= 0).all()
    assert (ops.kl_k2(logp, logp_ref) >= 0).all()


def test_by_hand():
    # π = (¾, ¼), π_ref = (½, ½): KL = ¾ log 3/2 + ¼ log ½.
    logits, ref = t([math.log(3), 0.0]), t([5.0, 5.0])
    want = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert ops.kl_exact(logits, ref).item() == pytest.approx(want)
    assert ops.entropy(ref).item() == pytest.approx(math.log(2))
    # An action with π = ¾: k1 = log 1.5, k2 = half its square, k3 = 2/3 − 1 + log 1.5.
    logp, logp_ref = t([math.log(0.75)]), t([math.log(0.5)])
    assert ops.kl_k1(logp, logp_ref).item() == pytest.approx(math.log(1.5))
    assert ops.kl_k2(logp, logp_ref).item() == pytest.approx(math.log(1.5) ** 2 / 2)
    assert ops.kl_k3(logp, logp_ref).item() == pytest.approx(math.log(1.5) - 1 / 3)


def test_k3_keeps_its_digits_near_zero():
    # r − 1 − log r = d²/2 + d³/6 + … for d = log r; float32 would round r − 1 to d's last digits.
    d = torch.tensor([1e-3, 1e-4], dtype=torch.float32)
    got = ops.kl_k3(torch.zeros(2), d)
    assert got[0].item() == pytest.approx(0.5e-6, rel=1e-3)
    naive = d.exp() - 1 - d
    assert abs(naive[1].item() / 0.5e-8 - 1) > 0.5  # what is avoided
    assert got[1].item() >= 0


def test_excluded_actions_count_nothing_and_leave_gradients_finite():
    inf = math.inf
    logits = t([0.0, 0.0, -inf]).requires_grad_()
    assert ops.entropy(logits).item() == pytest.approx(math.log(2))
    # π = (½, ½, 0) against (¼, ¼, ½): log 2.
    ref = t([0.0, 0.0, math.log(2)])
    kl = ops.kl_exact(logits, ref)
    assert kl.item() == pytest.approx(math.log(2))
    (kl + ops.entropy(logits)).backward()
    assert logits.grad.isfinite().all()
    assert ops.kl_exact(logits.detach(), t([0.0, 1.0, -inf])).isfinite()
    assert ops.kl_exact(ref, logits.detach()).item() == inf


def test_gradients_match_finite_differences():
    torch.manual_seed(0)
    a, b = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for f in (ops.kl_exact, ops.kl_k1, ops.kl_k2, ops.kl_k3):
        assert torch.autograd.gradcheck(f, (a, b))
    assert torch.autograd.gradcheck(ops.entropy, a)
