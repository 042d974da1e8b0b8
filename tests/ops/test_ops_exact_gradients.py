"""Expected gradients of sampled losses, enumerated exactly on tabular softmax policies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles import distribution, tabular
from plaudit import ops

RNG = np.random.default_rng(0)
THETA, THETA_REF = RNG.normal(size=(2, 5))


def expected_gradient(loss):
    """Σ_a π(a) ∇_θ loss(log π(a), log π_ref(a)): what sampling gives on average."""
    theta = torch.tensor(THETA, requires_grad=True)
    logp, logp_ref = theta.log_softmax(-1), torch.tensor(THETA_REF).log_softmax(-1)
    total = (logp.exp().detach() * loss(logp, logp_ref)).sum()
    return torch.autograd.grad(total, theta)[0].numpy()


def kl_gradient(*, forward):
    """∇ of KL(π‖π_ref), or of KL(π_ref‖π), by differences of exact sums."""

    def kl(theta):
        pair = (theta.tolist(), THETA_REF.tolist())
        return distribution.kl(*pair) if forward else distribution.kl(*pair[::-1])

    return tabular.gradient(kl, THETA)


def test_k1_as_a_loss_does_nothing():
    np.testing.assert_allclose(expected_gradient(ops.kl_k1), 0.0, atol=1e-12)
    assert np.abs(kl_gradient(forward=True)).max() > 0.1  # although there is something to do


def test_k2_as_a_loss_is_the_gradient_of_the_divergence():
    np.testing.assert_allclose(expected_gradient(ops.kl_k2), kl_gradient(forward=True), atol=1e-8)


def test_k3_as_a_loss_is_the_gradient_of_the_reversed_divergence():
    np.testing.assert_allclose(expected_gradient(ops.kl_k3), kl_gradient(forward=False), atol=1e-8)


def test_the_exact_divergence_has_its_own_gradient():
    theta = torch.tensor(THETA, requires_grad=True)
    ops.kl_exact(theta, torch.tensor(THETA_REF)).backward()
    np.testing.assert_allclose(theta.grad.numpy(), kl_gradient(forward=True), atol=1e-8)


def test_k1_in_the_reward_is_the_gradient_of_the_divergence():
    def loss(logp, logp_ref):
        return ops.score_function_loss(logp, -ops.kl_k1(logp, logp_ref))

    np.testing.assert_allclose(expected_gradient(loss), kl_gradient(forward=True), atol=1e-8)


GAMMA, NUM_ACTIONS = 0.8, 3
POLICY, REWARD, VALUE = RNG.normal(size=(3, 1 + NUM_ACTIONS, NUM_ACTIONS))


def trajectories():
    """Every walk of two steps: states, actions, rewards, [A², 2]."""
    a, b = np.divmod(np.arange(NUM_ACTIONS**2), NUM_ACTIONS)
    state = torch.from_numpy(np.stack([np.zeros_like(a), 1 + a], 1))
    action = torch.from_numpy(np.stack([a, b], 1))
    return state, action, torch.tensor(REWARD)[state, action]


def policy_gradient(loss_of_steps, credit):
    """−Σ P(walk) ∇ Σ_t γ^t loss_t over all walks, and so what the loss climbs on average."""
    theta = torch.tensor(POLICY, requires_grad=True)
    state, action, reward = trajectories()
    logp = theta.log_softmax(-1)[state, action]
    weight = logp.sum(1, keepdim=True).exp().detach() * torch.tensor([1.0, GAMMA])
    (weight * loss_of_steps(logp, credit(state, reward))).sum().backward()
    return -theta.grad.numpy()


def return_credit(state, reward):
    end = torch.tensor([[False, True]]).expand_as(state)
    return ops.discounted_return(reward, 0 * reward, end, end, gamma=GAMMA)


def baseline_credit(state, reward):
    """GAE at λ = 1 with a value that knows the state and is wrong: a baseline changes nothing."""
    end = torch.tensor([[False, True]]).expand_as(state)
    value = torch.tensor(VALUE[:, 0])[state]
    nv = ops.next_step_value(value, torch.ones_like(end))
    return ops.gae(reward, value, nv, end, end, gamma=GAMMA, lam=1.0)


def clipped_at_the_start(logp, adv):
    return ops.clipped_surrogate(logp, logp.detach(), adv, clip_low=0.2, clip_high=0.2)


def penalised_by_nothing(logp, adv):
    return ops.kl_penalised_surrogate(logp, logp.detach(), adv, logp, kl_coef=0.0)


@pytest.mark.parametrize(
    "loss", [ops.score_function_loss, clipped_at_the_start, penalised_by_nothing]
)
@pytest.mark.parametrize("credit", [return_credit, baseline_credit])
def test_policy_losses_climb_the_exact_policy_gradient(loss, credit):
    exact = tabular.gradient(lambda theta: tabular.expected_return(theta, REWARD, GAMMA), POLICY)
    np.testing.assert_allclose(policy_gradient(loss, credit), exact, atol=1e-8)


def test_leave_one_out_is_unbiased_over_every_pair_of_answers():
    """E over independent pairs of the leave-one-out loss is the exact gradient of the reward."""
    reward = torch.tensor(REWARD[0])
    theta = torch.tensor(POLICY[0], requires_grad=True)
    logp = theta.log_softmax(-1)
    pair = torch.cartesian_prod(torch.arange(NUM_ACTIONS), torch.arange(NUM_ACTIONS))
    adv = ops.leave_one_out_advantage(reward[pair])
    weight = logp[pair].sum(1, keepdim=True).exp().detach()
    (weight * ops.score_function_loss(logp[pair], adv) / 2).sum().backward()

    def value(t):
        return float(np.dot(distribution.probabilities(t.tolist()), REWARD[0]))

    np.testing.assert_allclose(-theta.grad.numpy(), tabular.gradient(value, POLICY[0]), atol=1e-8)
