"""Policies act by seed, greedily without one, and come back from facts and arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from plaudit.nets.actions import DuelingGreedy
from plaudit.nets.policies import (
    actor,
    deterministic,
    greedy,
    policy_from_facts,
    squashed_gaussian,
)
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

OBS = ObsSpec.vector(4)
IMAGE = ObsSpec((1, 9, 9), "uint8", (Piece("obs", "image", (1, 9, 9)),))
DISCRETE = ActionSpec("discrete", (3,))
MULTI = ActionSpec("multi_discrete", (2, 5))
BOX = ActionSpec("box", (2,), (-2.0, 0.0), (2.0, 1.0))

MADE = {
    "categorical": lambda rng: actor(OBS, DISCRETE, rng=rng, gain_out=1.0),
    "image": lambda rng: actor(IMAGE, DISCRETE, rng=rng, gain_out=1.0),
    "multi": lambda rng: actor(OBS, MULTI, rng=rng, gain_out=1.0),
    "gaussian": lambda rng: actor(OBS, BOX, rng=rng, gain_out=1.0),
    "greedy": lambda rng: greedy(OBS, DISCRETE, rng=rng),
    "dueling": lambda rng: greedy(OBS, DISCRETE, rng=rng, head=DuelingGreedy),
    "squashed": lambda rng: squashed_gaussian(OBS, BOX, rng=rng, hidden=(16,)),
    "deterministic": lambda rng: deterministic(OBS, BOX, rng=rng, hidden=(16,)),
}


def observations(policy, num_rows=64):
    spec, rng = policy.net.obs_spec, np.random.default_rng(2)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, (num_rows, *spec.shape), dtype=np.uint8)
    return rng.standard_normal((num_rows, *spec.shape), dtype=np.float32)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_policy_comes_back_from_json_and_arrays(make):
    policy = make(np.random.default_rng(0))
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05)
    again = policy_from_facts(json.loads(json.dumps(policy.facts())))
    again.load_arrays(policy.arrays())
    obs = observations(policy)
    assert np.array_equal(policy.act(obs, None), again.act(obs, None))
    drawn = policy.act(obs, np.random.default_rng(1))
    assert np.array_equal(drawn, again.act(obs, np.random.default_rng(1)))
    acted = policy.to_env(drawn)
    assert acted.shape == (64, *policy.head.spec.shape)
    assert acted.dtype == policy.head.spec.dtype


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_without_a_generator_the_best_known_action_is_taken(make):
    policy = make(np.random.default_rng(0))
    obs = observations(policy)
    params = policy(torch.from_numpy(obs)).detach()
    best = policy.act(obs, None)
    kind = policy.head.kind
    if kind == "categorical":
        assert np.array_equal(best, params.argmax(1).numpy())
    elif kind in ("greedy", "dueling_greedy"):
        assert np.array_equal(best, policy.head.q(params).argmax(1).numpy())
    elif kind == "multi_categorical":
        expected = [part.argmax(1).numpy() for part in params.split(MULTI.sizes, 1)]
        assert np.array_equal(best, np.stack(expected, 1))
    else:
        expected = params if kind == "gaussian" else params[:, :2].tanh()
        np.testing.assert_allclose(best, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_an_actor_begins_nearly_indifferent():
    policy = actor(OBS, DISCRETE, rng=np.random.default_rng(0))
    logp = policy(torch.from_numpy(observations(policy))).log_softmax(1)
    assert (logp.exp() - 1 / 3).abs().max() < 0.01


def test_bounded_actions_stay_in_the_worlds_bounds():
    for name in ("gaussian", "squashed", "deterministic"):
        policy = MADE[name](np.random.default_rng(0))
        acted = policy.to_env(policy.act(observations(policy, 500), np.random.default_rng(0)))
        assert (acted >= [-2.0, 0.0]).all()
        assert (acted <= [2.0, 1.0]).all()


def test_weights_of_another_policy_are_refused():
    policy = MADE["gaussian"](np.random.default_rng(0))
    with pytest.raises(UserError, match=r"expected \['head.log_std', 'net.mlp.flat'\]"):
        policy.load_arrays(MADE["squashed"](np.random.default_rng(0)).arrays())
