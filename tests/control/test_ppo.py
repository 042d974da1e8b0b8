"""PPO against worlds whose optima are known, its own traps, and going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from control.closed_worlds import (
    BANDIT_REWARD,
    STAY_VALUE,
    bandit_soft_optimum,
    corridor_value,
    regulator_cost,
    regulator_optimum,
    regulator_value,
)
from control.runs import control
from plaudit.agents.agent import Agent
from plaudit.agents.on_policy import Batch, advantage_batch, descend, scheduled
from plaudit.control.ppo import PPOConfig, objective, ppo
from plaudit.envs.make import make_worlds
from plaudit.envs.rollout import collect
from plaudit.nets.control_nets import Net, load_arrays, network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import actor
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved, part_of

WORLDS = str(Path(__file__).with_name("closed_worlds.py")) + ":"


def trained(**keys: Any) -> tuple[Agent, Net, list[Event]]:
    """The agent and the critic at the end of a run, and what the run said."""
    config = PPOConfig(eval_every=0, **keys)
    events = list(ppo(config))
    last = [event for event in events if isinstance(event, Checkpoint)][-1].state()
    worlds = make_worlds(config, seed=0, num_envs=1)
    rng = np.random.default_rng(0)
    critic = network(
        worlds.obs_spec, 1, hidden=config.hidden, activation=config.activation, rng=rng
    )
    load_arrays(critic, part_of(last, "critic")[0])
    worlds.close()
    return Agent.from_saved(part_of(last, "agent")), critic, events


def probabilities(agent: Agent, obs: np.ndarray) -> np.ndarray:
    logits = torch.from_numpy(agent.policy.net.infer(obs.astype(np.float32)))
    return logits.double().softmax(-1).numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bandit_reaches_the_boltzmann_optimum(seed):
    """With an entropy bonus the best policy is softmax(r / coefficient): Bandit-v0, exactly."""
    agent, _, _ = trained(
        env=WORLDS + "Bandit-v0",
        steps=60_000,
        seed=seed,
        num_envs=16,
        num_steps=64,
        minibatch_size=1024,
        num_epochs=4,
        entropy_coef=3.0,
        lr=5e-3,
        lr_schedule="linear",
        gamma=0.9,
    )
    # Advantages are divided by their deviation σ, so the bonus weighs σ·c: σ is that of r − mean r
    # under the policy itself; its fixed point is found by iteration.
    policy = np.full((2, 3), 1 / 3)
    for _ in range(200):
        mean = (policy * BANDIT_REWARD).sum(1, keepdims=True)
        sigma = np.sqrt((policy * (BANDIT_REWARD - mean) ** 2).sum(1).mean())
        policy = bandit_soft_optimum(3.0 * sigma)
    np.testing.assert_allclose(probabilities(agent, np.eye(3)[:2]), policy, atol=0.03)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truncation_bootstraps_with_the_final_observations_value(seed):
    """Stay-v0 (trap 1): who takes its time limit for an end leaves, which is worth 6, not 10."""
    agent, critic, _ = trained(
        env=WORLDS + "Stay-v0",
        steps=40_000,
        seed=seed,
        num_steps=32,
        minibatch_size=128,
        gamma=0.9,
        lr=3e-3,
        lr_schedule="linear",
    )
    assert agent.act(0) == 0
    assert critic.infer(np.eye(2, dtype=np.float32)[:1]).item() == pytest.approx(
        STAY_VALUE, rel=1e-3
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_corridor_beyond_the_time_limit(seed):
    """V*(s) = 0.9^(7 - s): the cells that never see the end learn of it by bootstrapping."""
    agent, critic, _ = trained(
        env=WORLDS + "Corridor-v0",
        steps=80_000,
        seed=seed,
        num_steps=64,
        minibatch_size=128,
        num_epochs=5,
        gamma=0.9,
        lr=3e-3,
        lr_schedule="linear",
    )
    cells = np.eye(9, dtype=np.float32)[:8]
    assert probabilities(agent, cells)[:, 1].min() > 0.99
    np.testing.assert_allclose(critic.infer(cells)[:, 0], corridor_value(0.9), atol=5e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_linear_quadratic_regulator(seed):
    """The learned policy costs no more than 1e-3 above Riccati's; the critic knows what it pays."""
    gamma = 0.9
    agent, critic, _ = trained(
        env=WORLDS + "Regulator-v0",
        steps=300_000,
        seed=seed,
        num_envs=16,
        num_steps=64,
        minibatch_size=256,
        gamma=gamma,
        entropy_coef=0.01,
        lr=1e-3,
        lr_schedule="linear",
    )
    gain, p, c = regulator_optimum(gamma)
    assert regulator_cost(control(agent), gamma) == pytest.approx(p / 3 + c, abs=1e-3)
    x = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    assert control(agent)(x[:, 0]) == pytest.approx(-gain * x[:, 0], abs=0.05)
    # What is drawn besides costs something, which the critic of that policy must know.
    std = agent.policy.head.log_std.exp().item()
    p, c = regulator_value(gain, std, gamma)
    assert critic.infer(x)[:, 0] == pytest.approx(-(p * x[:, 0] ** 2 + c), abs=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved_within_twenty_thousand_steps(seed):
    agent, _, _ = trained(
        env="CartPole-v1",
        steps=20_000,
        seed=seed,
        num_steps=64,
        gamma=0.98,
        lr=1e-3,
        lr_schedule="linear",
        max_kl=0.02,
    )
    returns = [episode.ret for episode in agent.evaluate(20)]
    assert np.mean(returns) >= 475


# --- traps


def batch_of(num_steps: int) -> tuple[Batch, Any, Net, PPOConfig]:
    """Real experience on CartPole, judged by fresh nets."""
    config = PPOConfig()
    worlds = make_worlds(config, seed=5)
    rng = np.random.default_rng(1)
    policy = actor(worlds.obs_spec, worlds.action_spec, rng=rng)
    critic = network(worlds.obs_spec, 1, rng=rng)
    seen = collect(worlds, lambda obs: policy.act(obs, rng), worlds.reset(), num_steps)
    worlds.close()
    return advantage_batch(seen, policy, critic, gamma=0.99, lam=0.95), policy, critic, config


def test_the_first_ratio_is_one():
    """Probabilities computed after the rollout are those the actions were drawn with."""
    batch, policy, critic, config = batch_of(64)
    numbers, _ = objective(config, policy, critic, batch, clip=1e-6)
    assert numbers["policy/approxkl"] == pytest.approx(0.0, abs=1e-7)
    assert numbers["policy/clipfrac"] == 0.0


def test_advantages_are_normalised_in_each_minibatch_and_one_alone_is_not():
    """Trap 4: mean 0 and sample deviation 1 in every minibatch; a minibatch of one stays as it is."""
    batch, *_ = batch_of(33)
    sizes = []
    for part in batch.minibatches(1, 50, np.random.default_rng(0)):
        adv = part.normalised_adv().double()
        sizes.append(len(part))
        assert abs(float(adv.mean())) < 1e-6
        assert float(adv.std()) == pytest.approx(1.0, abs=1e-4)
    assert sizes == [50, 50, 50, 50, 50, 14]
    alone = Batch(*(getattr(batch, name)[:1] for name in Batch.__dataclass_fields__))
    assert alone.normalised_adv() == alone.adv


def test_every_epoch_sees_every_step_once():
    batch, *_ = batch_of(33)
    seen = [part.ret for part in batch.minibatches(2, 50, np.random.default_rng(0))]
    for epoch in (torch.cat(seen[:6]), torch.cat(seen[6:])):
        assert torch.equal(epoch.sort().values, batch.ret.sort().values)
    assert not torch.equal(torch.cat(seen[:6]), torch.cat(seen[6:]))


def test_an_update_ends_before_the_step_that_would_go_on_too_far():
    """KL early stop: measured on the minibatch to come, before its step is taken."""

    def num_updates(max_kl: float | None) -> list[float]:
        config = PPOConfig(
            steps=2048, log_every=1024, eval_every=0, max_kl=max_kl, lr=3e-3, num_epochs=5
        )
        steps = [event for event in ppo(config) if isinstance(event, Step)]
        return [event.metrics["policy/num_updates"] for event in steps]

    assert num_updates(None) == [80.0, 80.0]
    assert num_updates(1e-9) == [1.0, 1.0]  # the first minibatch's divergence is 0 to rounding
    assert all(1 < number < 80 for number in num_updates(0.02))


def test_value_clipping_stops_the_gradient_beyond_the_range():
    batch, policy, critic, _ = batch_of(16)
    config = PPOConfig(value_clip=0.1)
    away = Batch(**{**vars(batch), "value": batch.value - 1.0, "ret": batch.value - 3.0})
    _, back = objective(config, policy, critic, away, clip=0.2)
    critic.zero_grad()
    back()
    towards = next(critic.parameters()).grad.clone()
    # V is 1 above V_old and the return 2 below it: (V - R)² = 9 beats the clipped (0.1 + 2)².
    assert towards.abs().max() > 0
    back = Batch(**{**vars(batch), "value": batch.value - 1.0, "ret": batch.value - 0.4})
    _, back = objective(config, policy, critic, back, clip=0.2)
    critic.zero_grad()
    back()
    # The return lies between: the clipped (0.1 - 0.6)² = 0.25 beats (V - R)² = 0.16: no gradient.
    assert next(critic.parameters()).grad.abs().max() == 0


def test_schedules_fall_with_what_is_left():
    assert scheduled(0.2, "linear", 0.25) == 0.05
    assert scheduled(0.2, "constant", 0.25) == 0.2


def test_a_step_moves_actor_and_critic_and_is_cut_to_its_length():
    batch, policy, critic, config = batch_of(64)
    optimiser = FlatAdam([*policy.parameters(), *critic.parameters()], lr=1e-3)
    _, back = objective(config, policy, critic, batch, clip=0.2)
    norm = descend(optimiser, back, 1e-3)
    after = torch.cat([p.grad.flatten() for p in optimiser.params]).norm()
    assert norm > 1e-3
    assert float(after) == pytest.approx(1e-3, rel=1e-2)


# --- any space


@pytest.mark.parametrize(
    ("env", "kind"),
    [("Pendulum-v1", "box"), ("FrozenLake-v1", "discrete"), ("Acrobot-v1", "discrete")],
)
def test_runs_in_other_worlds(env, kind):
    agent, _, events = trained(env=env, steps=512, num_envs=2, num_steps=64)
    assert agent.policy.head.spec.kind == kind
    assert isinstance(events[-1], Done)
    assert len(agent.evaluate(2)) == 2


def test_spec_of_policies_for_many_choices():
    rng = np.random.default_rng(0)
    policy = actor(ObsSpec.vector(3), ActionSpec("multi_discrete", (2, 3)), rng=rng)
    assert policy.act(np.zeros((5, 3), np.float32), rng).shape == (5, 2)


# --- going on


@pytest.mark.parametrize(
    "keys",
    [
        {"env": "CartPole-v1"},
        {"env": "Pendulum-v1", "normalise_obs": True, "normalise_reward": True},
        {"env": "CartPole-v1", "frame_stack": 3, "lr_schedule": "linear", "max_kl": 0.01},
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(keys):
    config = PPOConfig(
        steps=1024,
        num_envs=4,
        num_steps=32,
        minibatch_size=32,
        num_epochs=2,
        eval_every=256,
        **keys,
    )
    whole = checkpoints(ppo(config))
    assert [step for step, _ in whole] == list(range(128, 1025, 128))
    for stop in (0, 3, 6):
        step, saved = whole[stop]
        resumed = checkpoints(ppo(config, saved=saved))
        assert [at for at, _ in resumed] == [at for at, _ in whole if at > step]
        assert_same(resumed[-1][1], whole[-1][1])


def checkpoints(events: Any) -> list[tuple[int, Saved]]:
    """Every checkpoint of a run, copied as writing it would."""
    found = []
    for event in events:
        if isinstance(event, Checkpoint):
            arrays, facts = event.state()
            found.append((event.step, ({k: np.array(a) for k, a in arrays.items()}, facts)))
    return found


def assert_same(one: Saved, other: Saved) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, array in one[0].items():
        assert array.tobytes() == other[0][name].tobytes(), name
