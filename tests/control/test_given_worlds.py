"""Worlds and rewards that a caller gives to a loop: for inner loops, and for rewards that are learned."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from control.closed_worlds import BANDIT_REWARD, Corridor
from control.runs import WORLDS, assert_goes_on, assert_same, checkpoints, trained
from plaudit.agents.loop import Loop
from plaudit.control.a3c import seed_of_worker
from plaudit.control.ppo_recurrent import EpisodeTracker
from plaudit.envs.make import make_worlds
from plaudit.nets.recurrent_policies import Memory
from plaudit.pipelines.control.job import ALGORITHMS
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Event, Step

SMALL: dict[str, dict[str, Any]] = {
    "reinforce": {"steps": 200},
    "qac": {"steps": 200, "normalise_reward": True},
    "a2c": {"steps": 200, "num_envs": 2},
    "a3c": {"steps": 200, "num_workers": 1},
    "ppo": {"steps": 256, "num_envs": 2, "num_steps": 32, "normalise_reward": True},
    "ppo_kl": {"steps": 256, "num_envs": 2, "num_steps": 32},
    "ppo_recurrent": {"steps": 256, "num_envs": 2, "num_steps": 32},
    "dqn": {"steps": 300, "learning_starts": 100},
    "dqn_distributional": {"steps": 300, "learning_starts": 100},
    "sac": {"steps": 150, "normalise_reward": True, "hidden": (16,)},
    "sac_discrete": {"steps": 150, "hidden": (16,)},
    "td3": {"steps": 150, "hidden": (16,)},
}
CONTINUOUS = {"sac", "td3"}


def found(name: str, **keys: Any) -> tuple[Callable[..., Iterator[Event]], Any]:
    """An algorithm's loop and a config of it."""
    file, _, kind = ALGORITHMS[name].partition(":")
    module = importlib.import_module(f"plaudit.control.{file}")
    return getattr(module, name), getattr(module, kind)(eval_episodes=2, eval_every=0, **keys)


def small(name: str) -> tuple[Callable[..., Iterator[Event]], Any]:
    env = "MountainCarContinuous-v0" if name in CONTINUOUS else WORLDS + "Corridor-v0"
    return found(name, env=env, seed=4, **SMALL[name])


def own_reward(name: str) -> Callable[..., np.ndarray]:
    """What `small(name)`'s world pays, to the bit."""
    if name in CONTINUOUS:  # 100 at the goal, and a tenth of the squared force
        return lambda obs, action, next_obs, end: (
            100.0 * end - action[:, 0].astype(np.float64) ** 2 * 0.1
        )
    table = Corridor().reward
    return lambda obs, action, next_obs, end: table[_cells(obs), action]


def _cells(obs: np.ndarray) -> np.ndarray:
    assert obs.shape[1:] == (1,), "the reward is told of observations before they are scaled"
    cells = obs[:, 0].astype(np.int64)
    assert (cells == obs[:, 0]).all()
    return cells


def same_world(name: str, config: Loop) -> Any:
    seed = seed_of_worker(config, 0, 0) if name == "a3c" else config.seed  # type: ignore[arg-type]
    return make_worlds(config, seed=seed, gamma=config.gamma)  # type: ignore[attr-defined]


def both(events: Iterator[Event]) -> tuple[list[tuple[int, dict[str, float]]], dict[str, Any]]:
    """The lines of a run's log, and the arrays of its last checkpoint."""
    lines, last = [], None
    for event in events:
        if isinstance(event, Step):
            lines.append((event.step, dict(event.metrics)))
        if isinstance(event, Checkpoint):
            last = event
    assert last is not None
    return lines, last.state()[0]


@pytest.mark.parametrize("name", SMALL)
def test_worlds_that_are_the_configs_change_nothing(name):
    loop, config = small(name)
    given = same_world(name, config)
    closed: list[bool] = []
    given.close = lambda: closed.append(True)
    assert_same(
        checkpoints(loop(config))[-1][1],
        checkpoints(loop(config, worlds=given))[-1][1],
    )
    assert not closed, "who made the worlds closes them"


@pytest.mark.parametrize("name", SMALL)
def test_a_reward_that_is_the_worlds_own_changes_nothing(name):
    loop, config = small(name)
    reward = own_reward(name)
    (one, before), (other, after) = (
        both(loop(config, **keys)) for keys in ({}, {"reward": reward})
    )
    for (_, plain), (_, told) in zip(one, other, strict=True):
        assert told.pop("rollout/given_return", None) == plain.get("rollout/return")
        assert told == plain
    for key, array in before.items():
        if not key.startswith(("worlds/", "alone/")):  # the reward's sums are kept beside these
            assert array.tobytes() == after[key].tobytes(), key


TURNED = {
    "ppo": {"steps": 4000, "num_envs": 4, "num_steps": 64, "lr": 3e-3},
    "a2c": {"steps": 6000, "num_envs": 8, "lr": 3e-3},
    "dqn": {"steps": 1500, "learning_starts": 100, "lr": 5e-3, "gamma": 0.9, "epsilon_end": 0.5},
}


@pytest.mark.parametrize("name", TURNED)
def test_minus_the_reward_turns_what_is_learned_around(name):
    """The worst arms are 0 (0.2) and 2 (0.0); by the world's own reward the best are 1 and 0."""
    loop, config = found(name, env=WORLDS + "Bandit-v0", seed=1, **TURNED[name])

    def minus(obs, action, next_obs, terminated):
        return -BANDIT_REWARD[obs[:, 0].astype(int), action]

    contexts = np.array([[0.0], [1.0]], np.float32)
    events = list(loop(config, reward=minus))
    chosen = []
    for run in (loop(config), iter(events)):
        agent, _ = trained(lambda _, run=run: run, config)
        chosen.append(agent.policy.act(contexts, None).tolist())
    assert chosen == [[1, 0], [0, 2]]
    told = [event.metrics for event in events if isinstance(event, Step)][-1]
    assert told["rollout/return"] == pytest.approx(-told["rollout/given_return"])
    assert 0.0 <= told["rollout/return"] <= 0.9  # the world's own, as ever


@pytest.mark.parametrize("name", ["ppo", "dqn", "reinforce"])
def test_a_run_with_a_reward_goes_on_bit_for_bit(name):
    loop, config = small(name)
    reward = own_reward(name)
    whole = checkpoints(loop(config, reward=reward))
    assert len(whole) > 2
    assert_goes_on(lambda config, **keys: loop(config, reward=reward, **keys), config, (1,))


def test_worlds_are_stepped_on_by_the_next_run():
    """An inner loop that is called again meets new episodes, not the first ones again."""
    loop, config = found("ppo", env="CartPole-v1", steps=64, num_envs=2, num_steps=32)
    worlds = make_worlds(config, seed=0)
    begun = []
    for _ in range(2):
        list(loop(config, worlds=worlds))
        begun.append(min(copy.episode for copy in worlds.copies))
    assert begun[1] > begun[0]


# --- what does not fit


@pytest.mark.parametrize(
    ("own", "keys", "words"),
    [
        ({"num_envs": 3}, {}, "the worlds given are 3 copies, but num_envs = 2"),
        (
            {"frame_stack": 2},
            {},
            r"show observations of shape \(8,\) .*CartPole-v1 .* shape \(4,\)",
        ),
        ({"env": "Acrobot-v1"}, {}, r"show observations of shape \(6,\)"),
        ({"normalise_obs": True}, {}, "scale observations, but normalise_obs = false"),
        ({}, {"normalise_obs": True}, "do not scale observations, but normalise_obs = true"),
        (
            {"env": "MountainCarContinuous-v0"},
            {"env": "MountainCar-v0"},
            r"actions that are box \(1,\) from .* MountainCar-v0 are discrete \(3,\)",
        ),
    ],
)
@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_worlds_that_do_not_fit_the_config_are_refused(name, own, keys, words):
    loop, config = found(name, **{"env": "CartPole-v1", "num_envs": 2, **keys})
    worlds = make_worlds(config.model_copy(update={"normalise_obs": False, **own}), seed=0)
    with pytest.raises(UserError, match=words):
        next(loop(config, worlds=worlds))
    worlds.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n: np.zeros((n, 1)), r"shape \(2, 1\) .* shape \(2,\), is expected"),
        (lambda n: 0.0, r"shape \(\) .* shape \(2,\), is expected"),
        (lambda n: np.array(["good"] * n), r"type <U4; one number for each copy"),
        (lambda n: np.array([0.0, np.nan]), "is nan in environment 1; a finite number"),
    ],
)
def test_a_reward_that_is_no_number_for_each_copy_is_refused(answer, words):
    loop, config = found("ppo", env="CartPole-v1", num_envs=2, num_steps=8)
    with pytest.raises(UserError, match=words):
        next(loop(config, reward=lambda obs, action, next_obs, end: answer(len(obs))))


@pytest.mark.parametrize("key", ["normalise_obs", "normalise_reward"])
def test_a_reward_cannot_be_put_beneath_scaling_that_is_wrapped(key):
    loop, config = found("ppo", env="CartPole-v1", num_envs=2, **{key: True})
    worlds = make_worlds(config, seed=0, gamma=config.gamma)
    wrapped = EpisodeTracker(worlds, Memory(2, 1))
    next(loop(config, worlds=wrapped))  # without a reward there is nothing to put
    with pytest.raises(
        UserError, match=f"{key} = true, but the worlds given are not as make_worlds"
    ):
        next(loop(config, worlds=wrapped, reward=lambda obs, action, next_obs, end: np.zeros(2)))


def test_workers_in_other_processes_take_neither():
    loop, config = found("a3c", env="CartPole-v1", num_workers=2)
    with pytest.raises(UserError, match=r"a3c was given a reward .* 2 workers .* num_workers to 1"):
        next(loop(config, reward=lambda obs, action, next_obs, end: np.zeros(len(obs))))
    with pytest.raises(UserError, match="a3c was given worlds"):
        next(loop(config, worlds=make_worlds(config, seed=0)))


def test_a_run_goes_on_with_a_reward_only_where_it_had_one():
    loop, config = small("ppo_kl")
    reward = own_reward("ppo_kl")
    plain, told = (checkpoints(loop(config, **keys))[0][1] for keys in ({}, {"reward": reward}))
    with pytest.raises(UserError, match="whether a reward is given must be as"):
        next(loop(config, reward=reward, saved=plain))
    with pytest.raises(UserError, match="whether a reward is given must be as"):
        next(loop(config, saved=told))
