"""Policy, value and preference losses: hand-worked numbers, gradients, symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit import ops

scores = st.floats(-30, 30, width=32)


def t(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


# --- policy


def clipped_by_cases(ratio, adv, low, high):
    """The surrogate by its four cases instead of a minimum (Schulman et al. 2017, figure 1)."""
    if adv >= 0:
        return -adv * (ratio if ratio <= 1 + high else 1 + high)
    return -adv * (ratio if ratio >= 1 - low else 1 - low)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_clipped_surrogate_by_cases(logp, logp_old, adv, low, high):
    got = ops.clipped_surrogate(t(logp), t(logp_old), t(adv), clip_low=low, clip_high=high)
    want = clipped_by_cases(math.exp(logp - logp_old), adv, low, high)
    assert got.item() == pytest.approx(want, abs=1e-9)


def test_importance_weights_turn_a_mean_over_draws_into_one_over_the_policy():
    """Enumerated: Σ q w f = Σ p f where no cap holds; ratios 2, 1, ½ are cut to 1.5, 1, ½."""
    p, q, f = t(0.5, 0.3, 0.2), t(0.25, 0.3, 0.45), t(3.0, -1.0, 7.0)
    weight = ops.truncated_importance(p.log(), q.log(), cap=100.0)
    assert (q * weight * f).sum().item() == pytest.approx((p * f).sum().item(), rel=1e-12)
    cut = ops.truncated_importance(t(2.0, 1.0, 0.5, grad=True).log(), t(0.0, 0.0, 0.0), cap=1.5)
    assert cut.tolist() == pytest.approx([1.5, 1.0, 0.5], rel=1e-12)
    assert not cut.requires_grad
    for cap in (0.9, 0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="cap must be at least 1"):
            ops.truncated_importance(p, q, cap=cap)


def test_the_clipped_surrogate_by_hand_and_where_its_gradient_is_zero():
    # Ratios 2, 2, ½, ½, 1.1 with ε_low = 0.2 and ε_high = 0.28, advantages ±1:
    #   2, A = 1: clipped at 1.28, loss −1.28, no gradient;  2, A = −1: kept, loss 2, gradient 2;
    #   ½, A = 1: kept, loss −½, gradient −½;  ½, A = −1: clipped at 0.8, loss 0.8, no gradient;
    #   1.1, A = 1: inside, loss −1.1, gradient −1.1.
    logp = torch.tensor([2, 2, 0.5, 0.5, 1.1], dtype=torch.float64).log().requires_grad_()
    loss = ops.clipped_surrogate(
        logp, t(0, 0, 0, 0, 0), t(1, -1, 1, -1, 1), clip_low=0.2, clip_high=0.28
    )
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), t(-1.28, 2, -0.5, 0.8, -1.1))
    torch.testing.assert_close(logp.grad, t(0, 2, -0.5, 0, -1.1))


def test_policy_gradients_match_finite_differences():
    torch.manual_seed(0)
    logp = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    old, adv = torch.randn(2, 2, 4, dtype=torch.float64)
    ref = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ops.score_function_loss(x, adv), logp)
    assert torch.autograd.gradcheck(
        lambda x: ops.clipped_surrogate(x, old, adv, clip_low=0.2, clip_high=0.3), logp
    )
    assert torch.autograd.gradcheck(
        lambda x: ops.kl_penalised_surrogate(x, old, adv, ops.kl_k2(x, ref), kl_coef=0.3), logp
    )


def test_the_penalised_surrogate_by_hand():
    # ρ = 2, A = 3, KL = 0.5, β = 4: −6 + 2 = −4.
    got = ops.kl_penalised_surrogate(t(math.log(2)), t(0.0), t(3.0), t(0.5), kl_coef=4.0)
    assert got.item() == pytest.approx(-4)


def test_advantages_and_old_policy_take_no_gradient():
    logp, old, adv = (t(0.1, 0.2, grad=True) for _ in range(3))
    losses = (
        ops.score_function_loss(logp, adv)
        + ops.clipped_surrogate(logp, old, adv, clip_low=0.2, clip_high=0.2)
        + ops.kl_penalised_surrogate(logp, old, adv, logp**2, kl_coef=0.1)
    )
    losses.sum().backward()
    assert old.grad is None
    assert adv.grad is None
    assert logp.grad.abs().min() > 0


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (1.1, 0.2), (0.2, -0.2), (math.nan, 0.2)])
def test_clip_ranges_that_make_no_sense_are_refused(low, high):
    with pytest.raises(ValueError, match="clip_low must lie"):
        ops.clipped_surrogate(t(0.0), t(0.0), t(1.0), clip_low=low, clip_high=high)


# --- value


def test_the_clipped_value_loss_by_hand():
    # V_old = 0, range 0.2, R = 1: V = 0.1 inside: ½·0.9² = 0.405. V = 0.5 counts as 0.2: ½·0.8² =
    # 0.32, no gradient. V = −1 goes the wrong way: ½·max(2², 1.2²) = 2, gradient V − R = −2.
    value = t(0.1, 0.5, -1.0, grad=True)
    loss = ops.clipped_value_loss(value, t(0, 0, 0), t(1, 1, 1), clip=0.2)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), t(0.405, 0.32, 2.0))
    torch.testing.assert_close(value.grad, t(-0.9, 0.0, -2.0))


@given(scores, scores, scores, st.floats(0.01, 5))
def test_the_clipped_value_loss_is_never_below_the_plain_one(value, old, ret, clip):
    got = ops.clipped_value_loss(t(value), t(old), t(ret), clip=clip).item()
    plain = 0.5 * (value - ret) ** 2
    assert got >= plain - 1e-9
    if abs(value - old) <= clip:
        assert got == pytest.approx(plain, abs=1e-9)


def test_value_gradients_match_finite_differences_and_targets_take_none():
    torch.manual_seed(1)
    value = torch.randn(8, dtype=torch.float64, requires_grad=True)
    old, ret = (torch.randn(8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    fixed = old.detach(), ret.detach()
    assert torch.autograd.gradcheck(lambda v: ops.clipped_value_loss(v, *fixed, clip=0.5), value)
    ops.clipped_value_loss(value, old, ret, clip=0.5).sum().backward()
    assert old.grad is None
    assert ret.grad is None


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_value_range_must_be_positive(clip):
    with pytest.raises(ValueError, match="clip must be positive"):
        ops.clipped_value_loss(t(0.0), t(0.0), t(0.0), clip=clip)


# --- preferences


def test_bradley_terry_by_hand():
    # Equal scores: log 2. A lead of log 3 wins with ¾: −log ¾. The margin takes the lead away.
    assert ops.bradley_terry(t(1.0), t(1.0)).item() == pytest.approx(math.log(2))
    lead = t(math.log(3))
    assert ops.bradley_terry(lead, t(0.0)).item() == pytest.approx(-math.log(0.75))
    assert ops.bradley_terry(lead, t(0.0), math.log(3)).item() == pytest.approx(math.log(2))
    each = ops.bradley_terry(t(1, 2), t(0, 0), t(1, 2))
    torch.testing.assert_close(each, t(math.log(2), math.log(2)))


@given(scores, scores)
def test_swapping_a_pair_takes_the_other_share(a, b):
    first, second = ops.bradley_terry(t(a), t(b)), ops.bradley_terry(t(b), t(a))
    assert (-first).exp().item() + (-second).exp().item() == pytest.approx(1)
    assert second.item() - first.item() == pytest.approx(a - b, abs=1e-9)


@given(scores, scores, st.floats(0, 1))
def test_soft_labels_weigh_the_two_choices(a, b, share):
    got = ops.bradley_terry_soft(t(a), t(b), t(share)).item()
    wins, losses = ops.bradley_terry(t(a), t(b)).item(), ops.bradley_terry(t(b), t(a)).item()
    assert got == pytest.approx(share * wins + (1 - share) * losses, abs=1e-9)
    mirrored = ops.bradley_terry_soft(t(b), t(a), t(1 - share)).item()
    assert got == pytest.approx(mirrored, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_soft_labels_are_best_matched_at_their_log_odds(share):
    lead = t(math.log(share / (1 - share)), grad=True)
    loss = ops.bradley_terry_soft(lead, t(0.0), t(share))
    loss.backward()
    assert lead.grad.item() == pytest.approx(0, abs=1e-12)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert loss.item() == pytest.approx(entropy)


def test_preference_gradients_match_finite_differences():
    torch.manual_seed(2)
    a, b = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    share = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, y: ops.bradley_terry(x, y, 0.7), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: ops.bradley_terry_soft(x, y, share), (a, b))
    assert torch.autograd.gradcheck(ops.reward_centring, (a, b))


def test_centring_pulls_the_level_and_leaves_the_difference():
    a, b = t(3.0, grad=True), t(-1.0, grad=True)
    loss = ops.reward_centring(a, b)
    loss.backward()
    assert loss.item() == 4.0
    assert a.grad.item() == b.grad.item() == 4.0


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_outside_0_to_1_are_refused(share):
    with pytest.raises(ValueError, match="share of votes"):
        ops.bradley_terry_soft(t(0.0), t(0.0), t(share))


@pytest.mark.usefixtures("unchecked_shapes")
def test_nothing_is_broadcast():
    x, one = torch.zeros(2, 3), torch.zeros(3)
    calls = [
        lambda: ops.score_function_loss(x, one),
        lambda: ops.clipped_surrogate(x, one, x, clip_low=0.2, clip_high=0.2),
        lambda: ops.kl_penalised_surrogate(x, x, x, one, kl_coef=1.0),
        lambda: ops.truncated_importance(x, one, cap=2.0),
        lambda: ops.clipped_value_loss(x, x, one, clip=0.2),
        lambda: ops.bradley_terry(x, one),
        lambda: ops.bradley_terry(x, x, one),
        lambda: ops.bradley_terry_soft(x, x, one),
        lambda: ops.reward_centring(x, one),
        lambda: ops.kl_k1(x, one),
        lambda: ops.kl_k2(x, one),
        lambda: ops.kl_k3(x, one),
        lambda: ops.kl_exact(x, one),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="nothing is broadcast"):
            call()


def test_explained_variance_by_hand():
    """Var R = 2/3 · 4 = 8/3 of (0, 2, 4); values (0, 2, 2) miss (0, 0, 2): Var 8/9; 1 − 1/3 = 2/3."""
    ret, value = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([0.0, 2.0, 2.0])
    assert ops.explained_variance(value, ret) == pytest.approx(2 / 3, rel=1e-6)
    assert ops.explained_variance(value, torch.ones(3)) == 0.0
