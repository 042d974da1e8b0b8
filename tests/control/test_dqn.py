"""DQN against worlds whose values are known, its own traps, and going on after a stop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from control.closed_worlds import BANDIT_REWARD, STAY_VALUE, corridor_value
from plaudit.agents.agent import Agent
from plaudit.agents.q_learning import TargetNet, epsilon, new_replay, sample_batch
from plaudit.agents.q_values import (
    HEADS,
    double_q_target,
    epsilon_greedy,
    huber_td,
    q_target,
    q_values,
    traced_q_values,
)
from plaudit.control.dqn import DQNConfig, dqn
from plaudit.envs.make import make_worlds
from plaudit.envs.replay import Batch
from plaudit.nets.policies import Policy, greedy
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Step
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved, part_of

WORLDS = str(Path(__file__).with_name("closed_worlds.py")) + ":"
TABLE: dict[str, Any] = {"hidden": (), "eval_every": 0, "learning_starts": 200, "train_every": 2}
"""One weight for each state and action: a table."""


def last_state(events: list[Event]) -> Saved:
    return [event for event in events if isinstance(event, Checkpoint)][-1].state()


def learned(**keys: Any) -> np.ndarray:
    """Q of every state of a world of numbered states at the end of a run."""
    last = last_state(list(dqn(DQNConfig(**keys))))
    policy = Agent.from_saved(part_of(last, "agent")).policy
    size = policy.net.obs_spec.num_features
    return q_values(policy, np.eye(size, dtype=np.float32))


# --- closed forms


@pytest.mark.parametrize("target", ["double_q", "q"])
@pytest.mark.parametrize("replay", ["uniform", "prioritised"])
def test_bandit_values_are_its_rewards(target, replay):
    q = learned(
        env=WORLDS + "Bandit-v0",
        steps=4000,
        target=target,
        replay=replay,
        lr=0.05,
        epsilon_end=1.0,
        **TABLE,
    )
    np.testing.assert_allclose(q[:2], BANDIT_REWARD, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trap_1_a_time_limit_is_no_end(seed):
    """Staying is worth 1/(1 − γ) = 10; who takes the cut for an end values it under 6 and leaves."""
    q = learned(
        env=WORLDS + "Stay-v0",
        steps=8000,
        seed=seed,
        gamma=0.9,
        n_step=1,
        lr=0.05,
        tau=0.05,
        epsilon_end=0.5,
        **TABLE,
    )
    np.testing.assert_allclose(q[0], [STAY_VALUE, 6.0], atol=1e-3 * STAY_VALUE)


def test_corridor_longer_than_its_limit():
    """Cells 0 to 3 never see the end within an episode; V*(s) = 0.9^(7 − s) all the same."""
    q = learned(
        env=WORLDS + "Corridor-v0",
        steps=12_000,
        num_envs=4,
        gamma=0.9,
        n_step=1,
        lr=0.05,
        tau=0.05,
        epsilon_end=1.0,
        **TABLE,
    )
    np.testing.assert_allclose(q[:8].max(1), corridor_value(0.9), atol=1e-3)
    assert (q[:8].argmax(1) == 1).all()


def test_trap_7_several_steps_reach_the_same_values_where_all_act_alike():
    """On the corridor with ε = 0 late on, chains of 3 are those of the best policy."""
    q = learned(
        env=WORLDS + "Corridor-v0",
        steps=12_000,
        num_envs=4,
        gamma=0.9,
        n_step=3,
        lr=0.05,
        tau=0.05,
        epsilon_end=0.0,
        buffer_size=1000,
        **TABLE,
    )
    np.testing.assert_allclose(q[:8].max(1), corridor_value(0.9), atol=1e-3)


# --- targets and loss, by hand

SEEN, TWO = ObsSpec.vector(2), ActionSpec("discrete", (2,))


def linear(weight: list[list[float]], *, net: str = "plain") -> Policy[Any]:
    """Q(s) = W s, for s of two numbers; with a dueling net W has a row for v, then one an action."""
    policy = greedy(SEEN, TWO, rng=np.random.default_rng(0), hidden=(), head=HEADS[net])
    flat = np.append(np.array(weight, np.float32).ravel(), np.zeros(len(weight), np.float32))
    with torch.no_grad():
        policy.net.mlp.flat.copy_(torch.from_numpy(flat))
    return policy


def batch_of(obs: list[list[float]], **columns: list[float]) -> Batch:
    rows = np.array(obs, np.float32)
    count = len(rows)
    reward = np.array(columns.get("reward", [0.0] * count), np.float32)
    discount = np.array(columns.get("discount", [0.9] * count), np.float32)
    action = np.zeros(count, np.int64)
    return Batch(rows, action, reward, rows, discount, np.arange(count))


def test_the_two_targets_by_hand():
    """At s = (1, 0): Q = (2, 1) online and (3, 5) target. q takes 5; double_q chooses 0, worth 3."""
    online, target = linear([[2, 0], [1, 0]]), linear([[3, 0], [5, 0]])
    batch = batch_of([[1, 0], [1, 0]], reward=[1, 7], discount=[0.5, 0])
    np.testing.assert_allclose(q_target(batch, online, target), [1 + 0.5 * 5, 7])
    np.testing.assert_allclose(double_q_target(batch, online, target), [1 + 0.5 * 3, 7])


def test_dueling_values_by_hand():
    """v = 10, adv = (1, 5): q = 10 + (1, 5) − 3 = (8, 12)."""
    policy = linear([[10, 0], [1, 0], [5, 0]], net="dueling")
    np.testing.assert_allclose(q_values(policy, np.array([[1, 0]], np.float32)), [[8, 12]])
    assert policy.act(np.array([[1, 0]], np.float32), None).tolist() == [1]


@pytest.mark.parametrize("net", ["plain", "dueling"])
def test_gradients_by_hand_are_autograds(net):
    rng = np.random.default_rng(0)
    policy = greedy(SEEN, ActionSpec("discrete", (3,)), rng=rng, hidden=(8,), head=HEADS[net])
    obs = rng.standard_normal((5, 2)).astype(np.float32)
    grad = rng.standard_normal((5, 3)).astype(np.float32)
    q, back = traced_q_values(policy, obs)
    back(grad)
    ours = policy.net.mlp.flat.grad.clone()
    policy.net.mlp.flat.grad = None
    by_torch = policy.head.q(policy(torch.from_numpy(obs)))
    by_torch.backward(torch.from_numpy(grad))
    np.testing.assert_allclose(q, by_torch.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(ours, policy.net.mlp.flat.grad, atol=1e-5)


def test_trap_6_huber_by_hand():
    """δ = ½, −3, 0 with weights 1 2 1: (½·¼ + 2·(3 − ½) + 0)/3; gradients ½/3, −2/3, 0."""
    q = np.array([[1.5, 9], [9, -2], [4, 4]], np.float32)
    weight = np.array([1, 2, 1], np.float32)
    goal = np.array([1, 1, 4], np.float32)
    loss, mean, delta, grad = huber_td(q, np.array([0, 1, 0]), goal, weight)
    assert loss == pytest.approx((0.125 + 5.0) / 3)
    assert mean == pytest.approx((1.5 - 2 + 4) / 3)
    np.testing.assert_allclose(delta, [0.5, -3, 0])
    np.testing.assert_allclose(grad, [[0.5 / 3, 0], [0, -2 / 3], [0, 0]], rtol=1e-6)


# --- traps


def test_trap_6_every_copy_tosses_its_own_coin():
    """Of 1000 copies at ε = ½ with 2 actions, ¾ act by the best: 750 ± 4·√(1000·¾·¼)."""
    policy = linear([[1, 0], [0, 0]])
    obs = np.tile(np.array([[1, 0]], np.float32), (1000, 1))
    action = epsilon_greedy(policy, obs, 0.5, np.random.default_rng(0))
    assert abs((action == 0).sum() - 750) < 55
    best = epsilon_greedy(policy, obs, 0.0, np.random.default_rng(0))
    assert (best == 0).all()


def test_trap_6_epsilon_falls_in_environment_steps():
    """From 1 to 0.1 over half of 100 steps: 0.55 after 25, 0.1 from 50 on."""
    config = DQNConfig(steps=100, epsilon_fraction=0.5, epsilon_end=0.1)
    got = [epsilon(config, step) for step in (0, 25, 50, 80)]
    assert got == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_trap_6_the_slow_net_begins_equal_and_jumps_by_environment_steps():
    net = linear([[1, 2], [3, 4]])
    target = TargetNet(net, every=100, tau=0.5)
    flat = target.net.net.mlp.flat
    assert flat.tolist() == net.net.mlp.flat.tolist()
    with torch.no_grad():
        net.net.mlp.flat += 1
    for step, jumped in ((8, False), (96, False), (104, True)):  # eight copies: 100 lies between
        target.follow(step)
        assert (flat.tolist() == net.net.mlp.flat.tolist()) is jumped
    assert not flat.requires_grad


def test_trap_6_or_it_moves_a_share_of_the_way():
    """From 1 towards 3 by a half: 2, then 2½."""
    net = linear([[1, 1], [1, 1]])
    target = TargetNet(net, every=None, tau=0.5)
    with torch.no_grad():
        net.net.mlp.flat.fill_(3.0)
    target.follow(1)
    assert target.net.net.mlp.flat[:4].tolist() == [2.0] * 4
    target.follow(2)
    assert target.net.net.mlp.flat[:4].tolist() == [2.5] * 4


@pytest.mark.parametrize(("num_envs", "train_every"), [(1, 4), (4, 4), (8, 4)])
def test_trap_6_updates_are_counted_in_environment_steps(num_envs, train_every):
    """64 steps, the first 24 without updates: the ten rounds at 28, 32, … 64, however many copies."""
    config = DQNConfig(
        steps=64,
        learning_starts=24,
        num_envs=num_envs,
        train_every=train_every,
        eval_every=0,
        hidden=(4,),
    )
    last = last_state(list(dqn(config)))
    rounds = sum(
        step // train_every - (step - num_envs) // train_every
        for step in range(num_envs, 65, num_envs)
        if step > 24
    )
    assert part_of(last, "optimiser")[1]["num_steps"] == rounds == 10


def test_trap_8_weights_reach_power_one_as_the_run_ends():
    """Two transitions of priorities 1 and 3 at α = 1: w = (3^β)^−1 apart; β = 0.4, 0.7 and 1."""
    config = DQNConfig(replay="prioritised", priority_alpha=1.0, batch_size=200, num_envs=2)
    worlds = make_worlds(config, seed=0)
    replay = new_replay(config, worlds)
    obs = worlds.reset()
    replay.add(obs, np.zeros(2, np.int64), worlds.step(np.zeros(2, np.int64)))
    replay.refresh(np.arange(2), np.array([1, 3], np.float32))
    for left, beta in ((1.0, 0.4), (0.5, 0.7), (0.0, 1.0)):
        weight = sample_batch(config, replay, left, np.random.default_rng(0)).weight
        assert sorted(set(weight.tolist())) == pytest.approx([3**-beta, 1.0], rel=1e-5)


# --- the whole


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_learned_in_ten_thousand_steps(seed):
    """A random policy stays up for 22 steps."""
    config = DQNConfig(
        steps=10_000,
        seed=seed,
        hidden=(64, 64),
        train_every=2,
        batch_size=128,
        lr=2e-3,
        n_step=5,
        eval_every=10_000,
    )
    (found,) = [event for event in dqn(config) if isinstance(event, Evaluation)]
    assert found.metrics["eval/return"] > 80


def test_metrics_of_a_run():
    events = list(dqn(DQNConfig(steps=2000, hidden=(8,), log_every=500, eval_every=0)))
    last = [event for event in events if isinstance(event, Step)][-1].metrics
    expected = {"loss/q", "q/mean", "grad_norm", "epsilon", "lr", "rollout/return"}
    assert expected <= set(last)
    assert isinstance(events[-1], Done)


VARIANTS: dict[str, dict[str, Any]] = {
    "double": {},
    "dueling and prioritised": {"net": "dueling", "replay": "prioritised", "num_envs": 3},
    "hard": {"target": "q", "target_every": 50, "train_every": 7, "gradient_steps": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_goes_on_bit_for_bit(variant):
    config = DQNConfig(
        steps=600,
        learning_starts=100,
        buffer_size=300,
        hidden=(16,),
        batch_size=16,
        eval_every=200,
        log_every=50,
        eval_episodes=2,
        **VARIANTS[variant],
    )
    saved: dict[int, Saved] = {}
    metrics: list[Event] = []
    for event in dqn(config):
        if isinstance(event, Checkpoint):
            saved[event.step] = copy.deepcopy(event.state())
        else:
            metrics.append(event)
    steps = sorted(saved)
    for at in (steps[3], steps[len(steps) // 2], steps[-4]):
        later = list(dqn(config, saved=saved[at]))
        last = last_state(later)
        assert last[1] == saved[steps[-1]][1]
        assert last[0].keys() == saved[steps[-1]][0].keys()
        for name, array in last[0].items():
            np.testing.assert_array_equal(array, saved[steps[-1]][0][name], err_msg=name)
        said = [event for event in later if not isinstance(event, Checkpoint)]
        assert said == metrics[-len(said) :]


def test_worlds_of_continuous_actions_are_refused():
    with pytest.raises(UserError, match="discrete"):
        next(dqn(DQNConfig(env="Pendulum-v1", steps=10)))


def test_a_run_that_runs_away_says_so():
    config = DQNConfig(steps=2000, lr=1e30, learning_starts=10, hidden=(8,), eval_every=0)
    with np.errstate(all="ignore"), pytest.raises(UserError, match="lower lr"):
        list(dqn(config))
