"""Defects found in published code, each kept out by name (functions of `ops` only)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import distribution
from plaudit import ops


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_kl1_sign_is_positive_where_the_policy_moved():
    # A published loss has −k1: a true divergence of 0.170 reads −0.170.
    logits, ref = [1.0, 0.0, -0.5], [0.1, 0.3, 0.2]
    p, logp, logp_ref = t(*logits).softmax(0), t(*logits).log_softmax(0), t(*ref).log_softmax(0)
    mean = (p * ops.kl_k1(logp, logp_ref)).sum().item()
    assert mean > 0.1
    assert mean == pytest.approx(distribution.kl(logits, ref))


def test_kl3_ratio_is_reference_over_policy():
    # log π − log π_ref = 10: e^−10 − 1 + 10 = 9.000045; the inverted ratio gives 22,015.
    assert ops.kl_k3(t(10.0), t(0.0)).item() == pytest.approx(math.exp(-10) + 9, abs=1e-9)
    assert ops.kl_k3(t(0.0), t(10.0)).item() == pytest.approx(math.exp(10) - 11)


def test_kl_under_no_grad_is_refused_as_a_penalty():
    logp = t(-1.0, -2.0).requires_grad_()
    with torch.no_grad():
        dead = ops.kl_k2(logp, t(-1.5, -1.5))
    with pytest.raises(ValueError, match="carries no gradient"):
        ops.kl_penalised_surrogate(logp, t(-1.0, -2.0), t(0.0, 0.0), dead, kl_coef=0.1)
    alive = ops.kl_k2(logp, t(-1.5, -1.5))
    ops.kl_penalised_surrogate(
        logp, t(-1.0, -2.0), t(0.0, 0.0), alive, kl_coef=0.1
    ).sum().backward()
    # ∂/∂logp of 0.1 · ½ (logp − logp_ref)² = 0.1 · (±½)
    torch.testing.assert_close(logp.grad, t(0.05, -0.05))


def test_a_log_ratio_loss_depends_on_the_other_policy():
    # Differentiating log π − log π_teacher directly, the teacher drops out of the gradient.
    gradients = []
    for teacher in (t(-1.0, -3.0), t(-3.0, -1.0)):
        logp = t(-2.0, -2.0).requires_grad_()
        ops.score_function_loss(logp, -ops.kl_k1(logp, teacher)).sum().backward()
        gradients.append(logp.grad)
    assert gradients[0].tolist() == [-1.0, 1.0]
    assert gradients[1].tolist() == [1.0, -1.0]


def test_bradley_terry_honours_the_margin():
    lead, margin = t(2.0), 1.5
    want = math.log1p(math.exp(-0.5))
    assert ops.bradley_terry(lead, t(0.0), margin).item() == pytest.approx(want)
    assert ops.bradley_terry(lead, t(0.0), t(margin)).item() == pytest.approx(want)
    assert ops.bradley_terry(lead, t(0.0)).item() < want


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_bradley_terry_does_not_overflow(dtype):
    # log(1 + exp(d)) overflows float32 from d = 89; the loss of a hopeless pair is d itself.
    worse = torch.tensor([-1000.0], dtype=dtype, requires_grad=True)
    loss = ops.bradley_terry(worse, torch.zeros(1, dtype=dtype))
    loss.sum().backward()
    assert loss.item() == 1000.0
    assert worse.grad.item() == -1.0
    soft = ops.bradley_terry_soft(
        worse, torch.zeros(1, dtype=dtype), torch.full((1,), 0.5).to(dtype)
    )
    assert soft.item() == 500.0


@pytest.mark.parametrize("num_observed", [0, 1, 10, 100])
def test_gae_skips_observation_tokens(num_observed):
    # Two turns of one token, γ = 1, λ = 0.95, V = 0.45 and 0.6, last reward 0.85:
    #   A_2 = 0.85 − 0.6 = 0.25;  A_1 = 0.6 − 0.45 + 0.95 · 0.25 = 0.3875 ≈ 0.387.
    n = num_observed
    value = t(0.45, *[float("nan")] * n, 0.6)
    reward = t(0.0, *[float("nan")] * n, 0.85)
    mask = torch.tensor([True, *[False] * n, True])
    end = torch.tensor([*[False] * (n + 1), True])
    next_value = ops.next_step_value(value, mask)
    adv = ops.gae(reward, value, next_value, end, end, gamma=1.0, lam=0.95, mask=mask)
    assert adv[0].item() == pytest.approx(0.3875)
    assert adv[-1].item() == pytest.approx(0.25)
    assert (adv[1:-1] == 0).all()


@pytest.mark.parametrize(("num_observed", "wrong"), [(10, 0.051), (100, -0.445)])
def test_gae_over_observation_tokens_would_lose_the_first_turn(num_observed, wrong):
    # The defect itself: observation tokens taken as steps of value 0, so that
    # A_1 = −0.45 + 0.95^n · (0.6 + 0.95 · 0.25).
    n = num_observed
    value = t(0.45, *[0.0] * n, 0.6)
    reward = t(*[0.0] * (n + 1), 0.85)
    every = torch.ones(n + 2, dtype=torch.bool)
    end = torch.tensor([*[False] * (n + 1), True])
    next_value = ops.next_step_value(value, every)
    adv = ops.gae(reward, value, next_value, end, end, gamma=1.0, lam=0.95)
    assert adv[0].item() == pytest.approx(wrong, abs=1e-3)


@given(
    st.floats(-1000, 1000, width=32),
    st.integers(2, 33),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from([0.0, 1e-9, 1e-6]),
)
def test_identical_rewards_give_exactly_zero_advantages(reward, size, dtype, eps):
    # Mean and sum of equal floats round, and a tiny eps turns that into advantages up to 0.96.
    group = torch.full((2, size), reward, dtype=dtype)
    assert (ops.group_advantage(group, eps=eps) == 0).all()
    assert (ops.leave_one_out_advantage(group) == 0).all()
    everything = torch.ones_like(group, dtype=torch.bool)
    assert (ops.masked_whiten(group, everything, eps=eps) == 0).all()


def test_nearly_identical_rewards_give_no_advantage_either():
    # Scores of one text from batches of two shapes differ in the last bits: −2075 was reported.
    score = torch.tensor([0.73, 0.73, 0.73, 0.73])
    score[2] = torch.nextafter(score[2], torch.tensor(1.0))
    assert score.unique().numel() == 2
    assert (ops.group_advantage(score, eps=0.0) == 0).all()


def test_a_single_rare_success_still_counts():
    reward = torch.zeros(64)
    reward[5] = 1.0
    # Sample std of one success in G is 1/√G; (1 − 1/64) · 8 = 7.875.
    assert ops.group_advantage(reward, eps=0.0)[5].item() == pytest.approx(7.875)


@pytest.mark.parametrize("size", [0, 1])
def test_a_singleton_group_is_refused(size):
    # Elsewhere its advantage is silently the raw reward.
    for f in (ops.group_advantage, ops.leave_one_out_advantage):
        with pytest.raises(ValueError, match=f"a group of {size} answers has no advantage"):
            f(torch.ones(3, size))


def test_micro_batches_of_unequal_length_do_not_change_the_loss():
    # A mean inside each micro-batch would weigh the short row's tokens more: (1 + 5)/2 = 3.
    loss = t(1.0, 1.0, 1.0, 5.0).reshape(2, 2)
    mask = torch.tensor([[True, True], [False, True]])
    whole = ops.aggregate(loss, mask, mask.sum())
    parts = [ops.aggregate(loss[i : i + 1], mask[i : i + 1], mask.sum()) for i in range(2)]
    assert whole.item() == pytest.approx(7 / 3)
    assert sum(parts).item() == pytest.approx(7 / 3)


def test_log_probabilities_are_renormalised_like_the_sampler_draws():
    # Unrenormalised log-probabilities give a mean ratio below 1 at the first update; here π drawn
    # with top-p and π scored are one distribution, and the expected ratio is 1.
    logits = t(2.0, 1.0, 0.0, -1.0)
    drawn = ops.filtered_logits(logits, temperature=0.9, top_p=0.8).softmax(-1)
    tokens = drawn.nonzero().flatten()
    logp, _ = ops.token_logprobs(
        torch.eye(1, dtype=torch.float64).expand(len(tokens), 1).contiguous(),
        logits[:, None],
        tokens,
        temperature=0.9,
        top_p=0.8,
    )
    torch.testing.assert_close(logp.exp(), drawn[tokens])
    assert len(tokens) == 2
