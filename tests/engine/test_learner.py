"""A learner's state comes back whole: its moments, and the absence of moments."""

from __future__ import annotations

import torch
from torch import nn

from plaudit.engine.learner import AdamConfig, Learner


def learner():
    return Learner({"w": nn.Parameter(torch.tensor([1.0, -2.0]))}, AdamConfig())


def walk(one, times):
    """Steps on ½‖w‖²."""
    for _ in range(times):
        one.zero_grad()
        (0.5 * (one.parameters["w"] ** 2).sum()).backward()
        one.step(lr=0.1)
    return one.parameters["w"].detach().clone()


def copied(state):
    return {name: array.clone() for name, array in state[0].items()}


def test_a_restored_learner_goes_on_bit_for_bit():
    one, other = learner(), learner()
    walk(one, 3)
    other.restore(copied(one.state()))
    assert walk(one, 3).equal(walk(other, 3))


def test_restoring_a_state_without_moments_forgets_those_of_before():
    used, fresh = learner(), learner()
    walk(used, 3)
    weights = {"weight.w": used.parameters["w"].detach().clone()}
    used.restore(weights)
    fresh.restore(weights)
    assert walk(used, 2).equal(walk(fresh, 2))
