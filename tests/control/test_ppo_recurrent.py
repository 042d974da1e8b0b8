"""Recurrent PPO: fragments, states carried and begun anew, a task of memory, going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control.runs import WORLDS, assert_goes_on, logged, trained
from plaudit.control.ppo import PPOConfig, ppo
from plaudit.control.ppo_recurrent import (
    EpisodeTracker,
    Fragments,
    RecurrentPPOConfig,
    by_time,
    normalised,
    ppo_recurrent,
    sequences_of,
    values,
)
from plaudit.envs.make import make_worlds
from plaudit.envs.rollout import collect
from plaudit.nets.recurrent_policies import (
    recurrent_actor,
    recurrent_net,
    recurrent_policy_from_facts,
)
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

SHAPE = {"num_hidden": 5, "hidden": (4,), "activation": "tanh"}

# --- fragments


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 4))
def test_fragments_hold_every_step_once_and_no_two_episodes(seed, num_steps, num_envs):
    rng = np.random.default_rng(seed)
    starts = rng.random((num_steps, num_envs)) < 0.3
    fragments = Fragments.of(starts)
    x = torch.from_numpy(rng.standard_normal((num_steps, num_envs, 2)))
    assert torch.equal(fragments.joined(fragments.cut(x), num_steps, num_envs), x)
    assert int(fragments.inside.sum()) == starts.size
    begins = fragments.cut(torch.from_numpy(starts))
    assert not bool((begins[1:] & fragments.inside[1:]).any())
    # Only a copy's first fragment can go on with an episode from before.
    hidden = torch.arange(1.0, num_envs + 1)[:, None]
    carried = fragments.state(hidden)[:, 0].tolist()
    first = [value for value in carried if value > 0]
    assert first == [copy + 1 for copy in range(num_envs) if not starts[0, copy]]


def test_fragments_by_hand():
    """Copy 0 begins at step 2; copy 1 began at step 0: [0 1] [2], and [0 1 2]."""
    starts = np.array([[False, True], [False, False], [True, False]])
    fragments = Fragments.of(starts)
    assert fragments.time.T.tolist() == [[0, 1, 1], [2, 2, 2], [0, 1, 2]]
    assert fragments.inside.T.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
    ]
    assert fragments.copy[0].tolist() == [0, 0, 1]
    assert fragments.carried.tolist() == [True, False, False]


# --- the same numbers as step by step


def rollouts(env: str, num: int, **keys):
    """Nets, and `num` rollouts one after another: what was seen, and what was known when acting."""
    config = RecurrentPPOConfig(env=WORLDS + env, num_envs=3, num_steps=9, gamma=0.9, **keys)
    worlds, rng = make_worlds(config, seed=0), np.random.default_rng(0)
    policy = recurrent_actor(worlds.obs_spec, worlds.action_spec, rng=rng, **SHAPE)
    critic = recurrent_net(worlds.obs_spec, 1, rng=rng, gain_out=1.0, **SHAPE)
    with torch.no_grad():
        policy.net.net.mlp.flat.mul_(50.0)  # the last layer begins near 0
    of_actor, of_critic = policy.net.memory(3), critic.memory(3)
    by_step, found, obs = [], [], worlds.reset()

    def act(obs):
        known = critic.memory(3)
        known.hidden = of_actor.hidden.copy()
        known.starts = of_actor.starts.copy()
        params = policy.net.infer(obs, known)
        action = policy.draw(obs, of_actor, rng)
        logp = policy.head.logp(torch.from_numpy(params), torch.from_numpy(action)).detach()
        by_step.append(logp.numpy())
        return action

    for _ in range(num):
        begun = policy.net.memory(3)
        begun.hidden, begun.starts = of_actor.hidden, of_actor.starts
        seen = collect(EpisodeTracker(worlds, of_actor), act, obs, config.num_steps)
        obs = seen.last_obs
        batch = sequences_of(config, policy, critic, seen, begun, of_critic)
        found.append((seen, batch, begun))
    worlds.close()
    return policy, critic, found, np.array(by_step)


@pytest.mark.parametrize("env", ["Recall-v0", "HiddenCartPole-v1"])
def test_probabilities_are_those_of_acting_across_rollouts_and_episodes(env):
    _, _, found, by_step = rollouts(env, 4)
    for number, (_, batch, begun) in enumerate(found):
        at = number * 9
        seen = found[number][0]
        starts = np.concatenate((begun.starts[None], seen.boundary.T[:-1]))
        whole = Fragments.of(starts).joined(batch.logp, 9, 3)
        np.testing.assert_allclose(whole, by_step[at : at + 9], atol=1e-5)
    assert any(seen.boundary.any() for seen, _, _ in found)
    assert not all(begun.starts.any() for _, _, begun in found)


def test_a_cut_episode_is_judged_by_its_own_memory():
    """Every value is that of the critic fed the episode so far, one observation after another."""
    _, critic, found, _ = rollouts("HiddenCartPole-v1", 4, max_episode_steps=5)
    of_critic = critic.memory(3)
    histories: list[list[np.ndarray]] = [[], [], []]
    cuts = 0

    def worth(history):
        memory = critic.memory(1)
        return [critic.infer(obs[None], memory)[0, 0] for obs in history][-1]

    for seen, _, begun in found:
        starts = np.concatenate((begun.starts[None], seen.boundary.T[:-1]))
        of_critic.starts = begun.starts
        fragments = Fragments.of(starts)
        hidden = fragments.state(torch.from_numpy(of_critic.hidden))
        with torch.no_grad():
            out, states = critic(fragments.cut(by_time(seen.obs)), hidden)
            value, next_value = values(critic, seen, fragments, out, states, of_critic)
        finals = {tuple(at): obs for at, obs in zip(seen.final_at, seen.final_obs, strict=True)}
        for copy in range(3):
            for t in range(9):
                if starts[t, copy]:
                    histories[copy] = []
                histories[copy].append(seen.obs[copy, t])
                assert value[copy, t] == pytest.approx(worth(histories[copy]), abs=1e-5)
                ahead = finals.get((copy, t))
                if ahead is None:
                    ahead = seen.obs[copy, t + 1] if t < 8 else seen.last_obs[copy]
                else:
                    cuts += int(not seen.terminated[copy, t])
                expected = worth([*histories[copy], ahead])
                assert next_value[copy, t] == pytest.approx(expected, abs=1e-5)
    assert cuts > 5


def test_advantages_are_normalised_over_the_steps_that_count():
    adv, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, -99.0]]), torch.ones(2, 3, dtype=bool)
    mask[:, 2] = False
    found = normalised(adv, mask)[mask]
    assert found.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert found.std().item() == pytest.approx(1.0, rel=1e-5)
    mask[:] = False
    mask[0, 0] = True
    assert torch.equal(normalised(adv, mask), adv)


# --- policies


def test_a_policy_remembers_until_it_is_told_of_a_beginning():
    rng = np.random.default_rng(0)
    policy = recurrent_actor(
        ObsSpec.vector(2), ActionSpec("box", (1,), (-1,), (1,)), rng=rng, **SHAPE
    )
    with torch.no_grad():
        policy.net.net.mlp.flat.mul_(50.0)
    obs = rng.standard_normal((2, 2)).astype(np.float32)
    first = policy.act(obs, None)
    second = policy.act(obs, None)
    assert (first != second).all()
    policy.note(np.array([True, False]))
    third = policy.act(obs, None)
    assert third[0] == first[0]
    assert third[1] not in (first[1], second[1])
    policy.begin()
    np.testing.assert_array_equal(policy.act(obs, None), first)

    again = recurrent_policy_from_facts(policy.facts())
    again.load_arrays(policy.arrays())
    np.testing.assert_array_equal(again.act(obs, None), first)


def test_images_are_refused():
    spec = ObsSpec((1, 8, 8), "uint8", (Piece("obs", "image", (1, 8, 8)),))
    with pytest.raises(UserError, match="frame_stack"):
        recurrent_net(spec, 1, rng=np.random.default_rng(0), gain_out=1.0, **SHAPE)


# --- memory pays


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recall_is_solved_with_memory_and_only_with_it(seed):
    """The best return is 1 with memory and 1/2 without: Recall-v0."""
    keys = {"env": WORLDS + "Recall-v0", "seed": seed, "eval_every": 0, "steps": 8_000, "lr": 1e-3}
    config = RecurrentPPOConfig(num_steps=48, log_every=1_000, **keys)
    assert logged(ppo_recurrent(config), "rollout/return")[-1] > 0.95
    config = PPOConfig(num_steps=48, log_every=4_000, **keys)
    assert logged(ppo(config), "rollout/return")[-1] == pytest.approx(0.5, abs=0.1)


def test_an_agent_remembers_its_episode_and_forgets_it_at_the_next():
    """Loaded from what was saved: 100 episodes in 32 worlds, and one after another by hand."""
    keys = {"env": WORLDS + "Recall-v0", "steps": 6_000, "lr": 1e-3, "num_steps": 48}
    agent, _ = trained(ppo_recurrent, RecurrentPPOConfig(eval_every=3_000, **keys))
    assert np.mean([episode.ret for episode in agent.evaluate(100)]) == 1.0
    for cue in (1, -1, -1, 1):
        agent.begin()
        agent.act(np.float32([cue, 0]))
        for _ in range(4):
            agent.act(np.float32([0, 0]))
        assert agent.act(np.float32([0, 1])) == (cue > 0)


@pytest.mark.parametrize("keys", [{"env": WORLDS + "Recall-v0"}, {"env": "Pendulum-v1"}])
def test_a_stopped_run_goes_on_bit_for_bit(keys):
    config = RecurrentPPOConfig(
        steps=256, num_envs=4, num_steps=16, num_epochs=2, eval_every=128, eval_episodes=2, **keys
    )
    assert_goes_on(ppo_recurrent, config)
