"""SAC: its density and gradients against independent ones, closed-form optima, and going on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from control.closed_worlds import Step as WorldStep
from plaudit.agents.agent import Agent
from plaudit.agents.temperature import Temperature
from plaudit.agents.twin_critics import critic_input, first_q, least_q
from plaudit.control import td3 as td3_file
from plaudit.control.sac import Draw, Learner, SACConfig, sac, soft_target
from plaudit.control.td3 import TD3Config
from plaudit.envs.make import make_worlds
from plaudit.envs.replay import Batch, Replay
from plaudit.envs.worlds import Transition
from plaudit.nets.actions import SquashedGaussian
from plaudit.nets.control_nets import network
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece
from plaudit.records.state import Saved, part_of

UNIT = ActionSpec("box", (1,), (-1.0,), (1.0,))
SMALL = {"hidden": (32, 32), "batch_size": 64, "buffer_size": 5000, "eval_every": 0}


class Hold(gym.Env[Any, Any]):
    """Pays 1 whatever is done; never terminates, cut after 5 steps: worth 1/(1 − γ) everywhere."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> WorldStep:
        return np.zeros(1, np.float32), 1.0, False, False, {}


ALPHA, MODE, STD = 0.5, 0.3, 0.2
"""Of Target-v0: its reward is α·log N(a; MODE, STD²) and a constant."""


class Target(Hold):
    """One step, paid −α(a − 0.3)²/(2·0.2²), a the unit action: best at temperature α is N(0.3, 0.2²)."""

    def step(self, action: Any) -> WorldStep:
        unit = float(np.asarray(action).item()) / 2.0
        reward = -ALPHA * (unit - MODE) ** 2 / (2 * STD**2)
        return np.zeros(1, np.float32), reward, True, False, {}


for _name, _kind, _limit in (("Hold-v0", Hold, 5), ("Target-v0", Target, None)):
    if _name not in gym.registry:
        gym.register(_name, _kind, max_episode_steps=_limit)


def finished(events: list[Event]) -> Saved:
    """The state at the end of a run."""
    assert isinstance(events[-1], Done)
    return [event for event in events if isinstance(event, Checkpoint)][-1].state()


# --- the squashed Gaussian


def exact_logp(u: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """log N(u; μ, σ²) − log sech² u in float64, with sech u = 2e^−|u|/(1 + e^−2|u|)."""
    u, mean, std = (np.asarray(x, np.float64) for x in (u, mean, std))
    log_sech = np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u)))
    return -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)) - 2 * log_sech


@given(st.floats(-12, 12), st.floats(-5, 1.9), st.floats(-4, 4))
def test_trap_9_log_probability_is_exact_even_where_tanh_is_one(mean, log_std, noise):
    params = np.array([[mean, log_std]], np.float32)
    eps = np.array([[noise]], np.float32)
    draw = Draw.of(params, eps)
    mean_, std = params[:, 0].astype(float), np.exp(params[:, 1].astype(float))
    u = mean_ + std * eps[:, 0].astype(float)
    # In float32 u itself is known to 1e-7 of its size, which log sech² doubles.
    assert draw.logp == pytest.approx(exact_logp(u, mean_, std), rel=2e-6, abs=2e-5)
    assert draw.action[:, 0] == pytest.approx(np.tanh(u), abs=1e-6)


def test_density_integrates_to_one():
    noise = np.linspace(-9, 9, 40001, dtype=np.float32)[:, None]
    for mean, log_std in ((0.0, 0.0), (1.0, -1.0), (-0.5, 0.5)):
        draw = Draw.of(np.full((len(noise), 2), (mean, log_std), np.float32), noise)
        area = np.trapezoid(np.exp(draw.logp.astype(float)), draw.action[:, 0].astype(float))
        assert area == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("num_dims", [1, 3])
def test_gradient_of_a_draw_is_autograds(num_dims):
    """Through `SquashedGaussian.sample`, with log σ beyond both ends of its range in some rows."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal((50, 2 * num_dims)).astype(np.float32)
    params[:5, num_dims:], params[5:10, num_dims:] = 2.5, -20.5
    noise = rng.standard_normal((50, num_dims)).astype(np.float32)
    of_action = rng.standard_normal((50, num_dims)).astype(np.float32)
    of_logp = np.float32(0.7)

    head = SquashedGaussian(ActionSpec("box", (num_dims,), (-1.0,) * num_dims, (1.0,) * num_dims))
    variable = torch.from_numpy(params).double().requires_grad_()
    action, logp = head.sample(variable, torch.from_numpy(noise).double())
    ((action * torch.from_numpy(of_action)).sum() + of_logp * logp.sum()).backward()

    draw = Draw.of(params, noise)
    assert draw.action == pytest.approx(action.detach().numpy(), abs=1e-6)
    assert draw.logp == pytest.approx(logp.detach().numpy(), rel=1e-5, abs=1e-4)
    found = draw.gradient(of_action=of_action, of_logp=of_logp)
    assert variable.grad is not None
    assert found == pytest.approx(variable.grad.numpy(), rel=1e-4, abs=1e-5)
    assert (found[:10, num_dims:] == 0).all()


def test_descent_on_an_exact_critic_finds_the_boltzmann_density():
    """With Q = α log p and p a squashed Gaussian, π = p is the optimum: μ 0.4, σ 0.5 to 1e-3."""
    mean, std, alpha = 0.4, 0.5, 0.3
    levels = (np.arange(2000) + 0.5) / 2000
    noise = torch.distributions.Normal(0.0, 1.0).icdf(torch.from_numpy(levels))
    eps = noise.float().numpy()[:, None]
    at = np.array([-0.3, 0.2])
    for step in range(2000):
        draw = Draw.of(np.tile(at, (len(eps), 1)).astype(np.float32), eps)
        u = np.arctanh(draw.action.astype(float))
        # dQ/da = α d log p/da = α (−(u − μ)/σ² + 2a)·du/da, du/da = 1/(1 − a²)
        slope = alpha * (-(u - mean) / std**2 + 2 * draw.action) / (1 - draw.action**2)
        of_action = (-slope / len(eps)).astype(np.float32)
        grad = draw.gradient(of_action=of_action, of_logp=np.float32(alpha / len(eps))).sum(0)
        at -= 0.3 / (1 + step / 200) * grad
    assert at == pytest.approx([mean, np.log(std)], abs=2e-3)


# --- critics


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8), (8, 16, 8)])
def test_slopes_of_critics_are_autograds(hidden):
    rng = np.random.default_rng(3)
    critic = network(
        ObsSpec.vector(3),
        1,
        hidden=hidden,
        activation="relu",
        rng=rng,
        init="uniform",
        copies=2,
        extra_inputs=2,
    )
    with torch.no_grad():  # weights with which the critics cross
        critic.mlp.flat.copy_(torch.from_numpy(rng.standard_normal(critic.mlp.flat.shape)))
    obs, action = rng.standard_normal((40, 3)).astype("f"), rng.standard_normal((40, 2)).astype("f")
    variable = torch.from_numpy(action).requires_grad_()
    both = critic(torch.cat([torch.from_numpy(obs), variable], 1))[..., 0]
    assert (both[0] < both[1]).any()
    assert (both[1] < both[0]).any()
    for found, expected in ((least_q, both.min(0).values), (first_q, both[0])):
        (slope,) = torch.autograd.grad(expected.sum(), variable, retain_graph=True)
        q, ours = found(critic, obs, action)
        assert q == pytest.approx(expected.detach().numpy(), rel=1e-5, abs=1e-4)
        assert ours == pytest.approx(slope.numpy(), rel=1e-5, abs=1e-4)


def test_critics_of_images_take_the_same_path_by_autograd():
    """A picture beside a number: finite differences of the lesser critic in the action."""
    pieces = (Piece("eye", "image", (1, 12, 12)), Piece("speed", "vector", (1,)))
    obs_spec = ObsSpec((145,), "float32", pieces)
    rng = np.random.default_rng(0)
    critic = network(obs_spec, 1, hidden=(8,), activation="relu", rng=rng, copies=2, extra_inputs=1)
    obs = rng.uniform(0, 255, (4, 145)).astype("f")
    action = rng.uniform(-1, 1, (4, 1)).astype("f")
    _, slope = least_q(critic, obs, action)
    step = np.float32(1e-2)
    above, below = least_q(critic, obs, action + step)[0], least_q(critic, obs, action - step)[0]
    assert slope[:, 0] == pytest.approx((above - below) / (2 * step), abs=2e-3)
    assert abs(slope).max() > 0.01


# --- what a transition is worth


def test_trap_1_terminations_end_the_future_and_truncations_do_not():
    """r = 1, γ = 0.9, next Q = 5, α = 0.5, log π = −2: 1 + 0.9·(5 + 1) = 6.4, and 1 at an end."""
    replay = Replay(8, ObsSpec.vector(1), UNIT, 2, gamma=0.9)
    replay.add(
        np.zeros((2, 1), np.float32),
        np.zeros((2, 1), np.float32),
        Transition(
            obs=np.zeros((2, 1), np.float32),
            next_obs=np.ones((2, 1), np.float32),
            reward=np.ones(2),
            terminated=np.array([True, False]),
            truncated=np.array([False, True]),
            mask=np.array([True, True]),
        ),
    )
    batch = replay.batch(np.array([0, 1]))
    y = soft_target(batch, np.full(2, 5.0, "f"), np.full(2, -2.0, "f"), 0.5)
    assert y == pytest.approx([1.0, 6.4])


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_trap_1_value_of_a_world_that_is_cut_but_never_ends(algorithm):
    """Hold-v0 at γ = ½ is worth 1/(1 − ½) = 2, to 1e-3.

    A learner that took its cuts, one step of five, for ends would find 1/(1 − ½·⅘) = 5/3.
    """
    keys: dict[str, Any] = {"env": "Hold-v0", "hidden": (), "tau": 0.1}
    config: Any = TD3Config(**keys) if algorithm == "td3" else SACConfig(alpha=0.0, **keys)
    worlds, rng = make_worlds(config, seed=0, num_envs=4), np.random.default_rng(0)
    specs = worlds.obs_spec, worlds.action_spec
    kind: Any = td3_file.Learner if algorithm == "td3" else Learner
    learner = kind(config, *specs, rng)
    replay, obs = Replay(400, *specs, 4, gamma=0.5), worlds.reset()
    for _ in range(100):
        action = learner.policy.head.random(4, rng)
        moved = worlds.step(learner.policy.to_env(action))
        replay.add(obs, action, moved)
        obs = moved.obs
    assert replay.truncated.sum() == 80
    for lr, num_updates in ((1e-2, 1000), (1e-3, 500), (1e-4, 500)):
        learner.actor_optimiser.lr = learner.critic_optimiser.lr = lr
        for _ in range(num_updates):
            batch = replay.sample(64, rng)
            shape = (64, 1) if algorithm == "td3" else (2, 64, 1)
            learner.update(batch, rng.standard_normal(shape, dtype=np.float32))
    action = np.linspace(-0.9, 0.9, 7, dtype=np.float32)[:, None]
    q = learner.critic.infer(critic_input(np.zeros((7, 1), np.float32), action))
    assert q == pytest.approx(np.full((2, 7, 1), 2.0), abs=1e-3)


# --- closed-form optima


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bandit_reaches_the_boltzmann_density(seed):
    """At temperature α the best policy is ∝ exp(Q/α): here N(0.3, 0.2²) in the unit box."""
    config = SACConfig(
        env="Target-v0", alpha=ALPHA, lr=1e-3, steps=5000, seed=seed, num_envs=4, train_every=2,
        **SMALL,
    )  # fmt: skip
    agent = Agent.from_saved(part_of(finished(list(sac(config))), "agent"))
    obs = np.zeros((20000, 1), np.float32)
    drawn = agent.policy.act(obs, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(MODE, abs=0.04)
    assert drawn.std() == pytest.approx(STD, abs=0.04)


def regulated(rng: np.random.Generator, gamma: float) -> Batch:
    """x' = x + u, paid −(x² + u²), with x and x' even in [−1, 1] and the unit action u/2."""
    x, after = rng.uniform(-1, 1, (2, 256, 1)).astype(np.float32)
    u = after - x
    reward = -(x**2 + u**2)[:, 0]
    return Batch(x, u / 2, reward, after, np.full(256, gamma, "f"), np.arange(256))


def taught(learner: Any, rng: np.random.Generator, noise: tuple[int, ...], lr: float) -> None:
    """2,500 updates on fresh transitions of the regulator, ever smaller."""
    for share, num_updates in ((1.0, 1500), (0.1, 700), (0.01, 300)):
        learner.actor_optimiser.lr = learner.critic_optimiser.lr = share * lr
        for _ in range(num_updates):
            batch = regulated(rng, 0.5)
            learner.update(batch, rng.standard_normal(noise, dtype=np.float32))


BOX_2 = ActionSpec("box", (1,), (-2.0,), (2.0,))
PLACES = np.linspace(-0.9, 0.9, 19, dtype=np.float32)[:, None]
GAIN, CURVE = np.sqrt(2) - 1, np.sqrt(2)
"""At γ = ½ Riccati's equation γP² + (1 − 2γ)P − 1 = 0 is P² = 2, and K = γP/(1 + γP) = √2 − 1."""


def test_regulator_with_entropy_has_the_closed_form():
    """Soft LQR: u ~ N(−Kx, s²), s² = α/(2(1 + γP)), in units where the box is 2 wide on each side;
    V(x) = −Px² − c, (1 − γ)c = −α(½ log(2πs²) − log 2), as V = α log ∫ exp(Q/α) da with a = u/2.
    """
    alpha, rng = 0.05, np.random.default_rng(0)
    config = SACConfig(hidden=(64, 64), lr=2e-3, tau=0.02, alpha=alpha)
    learner = Learner(config, ObsSpec.vector(1), BOX_2, rng)
    taught(learner, rng, (2, 256, 1), 2e-3)
    params = learner.policy.net.infer(PLACES)
    unit = np.tanh(params[:, :1])
    s = np.sqrt(alpha / (2 * (1 + 0.5 * CURVE)))
    c = -alpha * (0.5 * np.log(2 * np.pi * s**2) - np.log(2)) / 0.5
    assert 2 * unit == pytest.approx(-GAIN * PLACES, abs=0.02)
    std = 2 * np.exp(params[:, 1]) * (1 - unit[:, 0] ** 2)  # to first order in the squash
    assert std == pytest.approx(s, abs=0.01)
    q = learner.critic.infer(critic_input(PLACES, unit))[..., 0]
    assert q == pytest.approx(
        np.broadcast_to(-CURVE * PLACES[:, 0] ** 2 - 0.5 * c, q.shape), abs=0.04
    )


def test_regulator_without_entropy_has_riccatis_gain():
    rng = np.random.default_rng(0)
    config = TD3Config(hidden=(64, 64), lr=2e-3, tau=0.02, target_noise=0.0)
    learner = td3_file.Learner(config, ObsSpec.vector(1), BOX_2, rng)
    taught(learner, rng, (256, 1), 2e-3)
    unit = learner.policy.act(PLACES, None)
    gain = -float((2 * unit * PLACES).sum() / (PLACES**2).sum())
    assert gain == pytest.approx(GAIN, abs=0.08)
    q = learner.critic.infer(critic_input(PLACES, unit))[..., 0]
    assert q == pytest.approx(np.broadcast_to(-CURVE * PLACES[:, 0] ** 2, q.shape), abs=0.08)


# --- the temperature


def test_temperature_rises_below_the_target_entropy_and_falls_above():
    for entropy, sign in ((-3.0, 1), (1.0, -1)):
        temperature = Temperature(None, -1.0, 0.1)
        assert temperature.value == 1.0
        temperature.step(entropy)
        assert np.sign(temperature.value - 1.0) == sign
    fixed = Temperature(0.2, -1.0, 0.1)
    fixed.step(5.0)
    assert fixed.value == 0.2


def test_learned_temperature_holds_the_target_entropy():
    """Target-v0: whatever the reward's scale, the policy's entropy ends at −1 nat."""
    config = SACConfig(env="Target-v0", lr=3e-3, steps=3000, num_envs=4, train_every=2, **SMALL)
    agent = Agent.from_saved(part_of(finished(list(sac(config))), "agent"))
    noise = np.random.default_rng(0).standard_normal((20000, 1), dtype=np.float32)
    params = agent.policy.net.infer(np.zeros((20000, 1), np.float32))
    assert -Draw.of(params, noise).logp.mean() == pytest.approx(-1.0, abs=0.15)


# --- the loop


@pytest.mark.parametrize("num_envs", [1, 3])
def test_going_on_from_a_checkpoint_is_bit_for_bit(num_envs):
    config = SACConfig(
        steps=180, learning_starts=30, num_envs=num_envs, hidden=(16, 16), batch_size=16,
        buffer_size=100, eval_every=90, eval_episodes=2,
    )  # fmt: skip
    events = list(sac(config))
    stops = [event for event in sac(config) if isinstance(event, Checkpoint)]
    for event in sac(config):
        if isinstance(event, Checkpoint) and event.step >= 100:
            saved = event.state()
            break
    again = list(sac(config, saved=saved))
    said = [event for event in again if not isinstance(event, Checkpoint)]
    assert said == [e for e in events if not isinstance(e, Checkpoint)][-len(said) :]
    for (arrays, facts), (expected, facts_expected) in ((finished(again), finished(events)),):
        assert facts == facts_expected
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert np.array_equal(array, expected[name]), name
    assert len(stops) == 180 // num_envs


def test_updates_are_counted_in_steps_of_all_copies():
    """8 copies for 80 steps, learning from step 24 on: one round for every 4 steps after it."""
    config = SACConfig(
        steps=80, learning_starts=24, num_envs=8, train_every=4, gradient_steps=3, hidden=(8,),
        batch_size=8, buffer_size=100, eval_every=0,
    )  # fmt: skip
    arrays, facts = finished(list(sac(config)))
    assert facts["critic_optimiser"]["num_steps"] == (80 - 24) // 4 * 3
    assert facts["temperature"]["num_steps"] == facts["actor_optimiser"]["num_steps"] == 42
    assert part_of((arrays, facts), "replay")[0]["count"].sum() == 80


def test_learning_rate_falls_with_the_steps_to_come():
    config = SACConfig(steps=200, lr=1e-3, lr_schedule="linear", log_every=10, **SMALL)
    said = [event for event in sac(config) if isinstance(event, Step) and "lr" in event.metrics]
    assert len(said) == 10  # learning starts after step 100
    for event in said:
        # the mean over the last 10 of 200 steps, each counted before its update
        assert event.metrics["lr"] == pytest.approx(1e-3 * (1 - (event.step - 4.5) / 200))


def test_actions_without_bounds_are_refused():
    class Unbounded(Hold):
        action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    if "Unbounded-v0" not in gym.registry:
        gym.register("Unbounded-v0", Unbounded)
    with pytest.raises(UserError, match="finite bounds"):
        next(sac(SACConfig(env="Unbounded-v0")))
    with pytest.raises(UserError, match="squashed_gaussian policy needs a box"):
        next(sac(SACConfig(env="CartPole-v1")))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_learning_that_has_run_away_is_said():
    with pytest.raises(UserError, match=r"loss/\w+ is (nan|inf) at step"):
        list(sac(SACConfig(steps=500, lr=1e18, **SMALL)))
