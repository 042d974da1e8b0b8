"""What the tests of on-policy loops share: running, stopping and comparing, and exact gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from control.closed_worlds import TableWorld
from plaudit.agents.agent import Agent
from plaudit.agents.loop import Loop
from plaudit.envs.make import make_worlds
from plaudit.envs.rollout import Experience
from plaudit.nets.control_nets import Net, load_arrays, network
from plaudit.records.events import Checkpoint, Event, Step
from plaudit.records.state import Saved, part_of

WORLDS = str(Path(__file__).with_name("closed_worlds.py")) + ":"

Algorithm = Callable[..., Iterator[Event]]


def checkpoints(events: Iterator[Event]) -> list[tuple[int, Saved]]:
    """Every checkpoint of a run, copied as writing it would."""
    found = []
    for event in events:
        if isinstance(event, Checkpoint):
            arrays, facts = event.state()
            found.append((event.step, ({k: np.array(a) for k, a in arrays.items()}, facts)))
    return found


def assert_same(one: Saved, other: Saved) -> None:
    """Bit for bit."""
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, array in one[0].items():
        assert array.tobytes() == other[0][name].tobytes(), name


def assert_goes_on(loop: Algorithm, config: Loop, stops: tuple[int, ...] = (0, 2)) -> None:
    """A run that stopped at some of its checkpoints ends as the one that did not."""
    whole = checkpoints(loop(config))
    for stop in stops:
        step, saved = whole[stop]
        resumed = checkpoints(loop(config, saved=saved))
        assert [at for at, _ in resumed] == [at for at, _ in whole if at > step]
        assert_same(resumed[-1][1], whole[-1][1])


def trained(loop: Algorithm, config: Loop) -> tuple[Agent, Saved]:
    """The agent at the end of a run, and all that was saved there."""
    last = None
    for event in loop(config):
        if isinstance(event, Checkpoint):
            last = event
    assert last is not None
    saved = last.state()
    return Agent.from_saved(part_of(saved, "agent")), saved


def control(agent: Agent) -> Callable[[np.ndarray], np.ndarray]:
    """u(x) [N] of the agent's best known action, for a world of one number and one control."""

    def act(x: np.ndarray) -> np.ndarray:
        drawn = agent.policy.act(x.astype(np.float32)[:, None], None)
        return np.asarray(agent.policy.to_env(drawn)[:, 0], float)

    return act


def critic_of(config: Any, saved: Saved, num_out: int = 1) -> Net:
    """The critic of a run, from what was saved of it."""
    worlds = make_worlds(config, seed=0, num_envs=1)
    rng = np.random.default_rng(0)
    shape = {"hidden": config.hidden, "activation": config.activation}
    critic = network(worlds.obs_spec, num_out, rng=rng, **shape)
    worlds.close()
    load_arrays(critic, part_of(saved, "critic")[0])
    return critic


def logged(events: Iterator[Event], name: str) -> list[float]:
    """What a run said of one metric."""
    lines = [event.metrics for event in events if isinstance(event, Step)]
    return [line[name] for line in lines if name in line]


def probabilities(agent: Agent, obs: np.ndarray) -> np.ndarray:
    """π(·|s) [N, A] of a discrete policy."""
    return softmax(agent.policy.net.infer(obs.astype(np.float32)).astype(float))


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


# --- exact gradients on a table; a linear net on one-hot states is a table of logits plus a bias


def linear_logits(theta: np.ndarray, num_actions: int, num_states: int) -> np.ndarray:
    """Logits [S, A] of the flat weights (weight [A, S], bias [A]) of a net without hidden layers."""
    weight = theta[: num_actions * num_states].reshape(num_actions, num_states)
    return weight.T + theta[num_actions * num_states :]


def slope(worth: Callable[[np.ndarray], float], theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """∇worth by central differences, in float64."""
    rows = np.eye(len(theta)) * h
    return np.array([(worth(theta + row) - worth(theta - row)) / (2 * h) for row in rows])


def trajectories(world: TableWorld, limit: int) -> Iterator[tuple[float, list[int], list[int]]]:
    """Every (probability of the world's draws, states, actions) of an episode.

    One more state than actions; the episode ends in one of the world's ends, or after `limit`
    steps. The policy's draws are not in the probability.
    """

    def onward(chance: float, states: list[int], actions: list[int]) -> Any:
        if states[-1] in world.ends or len(actions) == limit:
            yield chance, states, actions
            return
        for action in range(world.transition.shape[0]):
            for ahead, p in enumerate(world.transition[action, states[-1]]):
                if p > 0:
                    yield from onward(chance * p, [*states, ahead], [*actions, action])

    for state, p in enumerate(world.initial):
        if p > 0:
            yield from onward(p, [state], [])


def as_experience(world: TableWorld, states: list[int], actions: list[int]) -> Experience:
    """One trajectory as a copy's experience [1, T], its states one-hot."""
    num_steps = len(actions)
    one_hot = np.eye(len(world.initial), dtype=np.float32)[states]
    ends = np.zeros((1, num_steps), np.bool_)
    ends[0, -1] = True
    return Experience(
        obs=one_hot[None, :-1],
        action=np.array([actions]),
        reward=world.reward[states[:-1], actions][None].astype(np.float32),
        terminated=ends & (states[-1] in world.ends),
        boundary=ends,
        mask=np.ones_like(ends),
        last_obs=one_hot[-1:],
        final_at=np.array([[0, num_steps - 1]]),
        final_obs=one_hot[-1:],
    )


def gradient_of(*parameters: torch.nn.Parameter) -> np.ndarray:
    """What lies in `grad`, flat, in float64."""
    return np.concatenate(
        [p.grad.double().numpy().ravel() for p in parameters if p.grad is not None]
    )
