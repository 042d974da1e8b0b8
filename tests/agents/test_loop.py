"""What loops share: counting, logging, judging, and being saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from plaudit.agents.evaluation import Evaluator, play, summary
from plaudit.agents.loop import Loop, Monitor
from plaudit.envs.settings import WorldSettings
from plaudit.envs.worlds import Episode, Transition
from plaudit.records.events import Checkpoint, Evaluation, Step
from plaudit.records.state import Parts


class Clockwork:
    """Worlds whose copy b's k-th episode lasts lengths[b][k] steps and returns 100·b + k."""

    gives_state = True

    def __init__(self, lengths: list[list[int]]) -> None:
        self.lengths, self.num_envs = lengths, len(lengths)

    def reset(self) -> np.ndarray:
        self.at = [[0, 0] for _ in self.lengths]
        return np.zeros((self.num_envs, 1), np.float32)

    def step(self, actions: np.ndarray) -> Transition:
        ended = []
        for copy, place in enumerate(self.at):
            episode, t = place
            length = self.lengths[copy][episode % len(self.lengths[copy])]
            place[1] = t + 1
            if t + 1 == length:
                ended.append(Episode(copy, 100.0 * copy + episode, length))
                place[:] = [episode + 1, 0]
        obs = np.zeros((self.num_envs, 1), np.float32)
        none = np.zeros(self.num_envs, np.bool_)
        return Transition(obs, obs, np.zeros(self.num_envs), none, none, ~none, ended)


def test_every_copy_plays_as_many_episodes_as_the_others():
    """The short episodes of copy 0 must not crowd out the long ones of copy 2."""
    worlds: Any = Clockwork([[1], [3], [50]])
    episodes = play(worlds, lambda obs: np.zeros(3), worlds.reset(), 7)
    assert [(e.env, e.ret) for e in episodes] == [
        (0, 0.0), (0, 1.0), (0, 2.0), (1, 100.0), (1, 101.0), (2, 200.0), (2, 201.0),
    ]  # fmt: skip


def test_summary_by_hand():
    found = summary([Episode(0, ret, length) for ret, length in ((1.0, 2), (3.0, 4), (8.0, 9))])
    assert found["eval/return"] == 4.0
    assert found["eval/length"] == 5.0
    assert 1.0 <= found["eval/return_low"] < 4.0 < found["eval/return_high"] <= 8.0


def test_the_same_episodes_are_played_each_time():
    evaluator = Evaluator(WorldSettings(env="CartPole-v1", seed=3), 5)
    push = lambda obs: (obs[:, 2] > 0).astype(np.int64)  # noqa: E731
    first, second = evaluator.episodes(push), evaluator.episodes(push)
    evaluator.close()
    other = Evaluator(WorldSettings(env="CartPole-v1", seed=4), 5)
    assert first == second
    assert first != other.episodes(push)
    other.close()


# --- the monitor


def walk(config: Loop, round_steps: int, **keys: Any) -> list[tuple[str, int]]:
    """What a monitor says, as (event, step), for rounds of so many steps."""
    monitor = Monitor(config, lambda obs: np.zeros(len(obs), np.int64), lambda worlds: None)
    said = []
    while not monitor.finished:
        monitor.count(round_steps, [])
        said += [(type(event).__name__, event.step) for event in monitor.events(Parts())]
    return [*said, (type(monitor.done()).__name__, monitor.done().step)]


def test_what_is_due_is_said_once_it_is_passed():
    config = Loop(steps=100, log_every=25, eval_every=50, save_every=40, eval_episodes=2)
    said = walk(config, 10)
    assert [step for kind, step in said if kind == "Step"] == [30, 50, 80, 100]
    assert [step for kind, step in said if kind == "Evaluation"] == [50, 100]
    assert [step for kind, step in said if kind == "Checkpoint"] == list(range(10, 101, 10))
    assert said[-1] == ("Done", 100)


def test_checkpoints_are_due_where_the_config_says_and_at_the_end():
    config = Loop(steps=100, save_every=40, eval_every=0)
    monitor = Monitor(config, lambda obs: obs, lambda worlds: None)
    due = []
    while not monitor.finished:
        monitor.count(10, [])
        due += [e.step for e in monitor.events(Parts()) if isinstance(e, Checkpoint) and e.due]
    assert due == [40, 80, 100]


def test_metrics_are_averaged_between_two_lines():
    monitor = Monitor(Loop(steps=100, log_every=20, eval_every=0), lambda obs: obs, lambda w: None)
    monitor.count(10, [Episode(0, 4.0, 10)])
    monitor.add({"loss/policy": 1.0})
    assert not [e for e in monitor.events(Parts()) if isinstance(e, Step)]
    monitor.count(10, [Episode(1, 8.0, 20), Episode(0, 9.0, 30)])
    monitor.add({"loss/policy": 2.0})
    (step,) = [event for event in monitor.events(Parts()) if isinstance(event, Step)]
    assert step.metrics == {"rollout/return": 7.0, "rollout/length": 20.0, "loss/policy": 1.5}
    monitor.count(20, [])
    (step,) = [event for event in monitor.events(Parts()) if isinstance(event, Step)]
    assert step.metrics == {}


def test_the_best_evaluation_is_marked_and_equals_count():
    returns = iter([1.0, 3.0, 2.0, 3.0])
    config = Loop(steps=40, eval_every=10, eval_episodes=2)
    monitor = Monitor(config, lambda obs: obs, lambda worlds: None)
    monitor._evaluator = lambda act, copy: {"eval/return": next(returns)}  # type: ignore[assignment]
    best = []
    while not monitor.finished:
        monitor.count(10, [])
        best += [e.best for e in monitor.events(Parts()) if isinstance(e, Checkpoint)]
    assert best == [True, True, False, True]
    assert monitor.done().metrics == {"eval/best": 3.0}


def test_a_monitor_goes_on_from_where_it_was_saved():
    def make() -> Monitor:
        return Monitor(Loop(steps=100, log_every=30, eval_every=0), lambda obs: obs, lambda w: None)

    def go(monitor: Monitor, rounds: int) -> list[Any]:
        said: list[Any] = []
        for _ in range(rounds):
            monitor.count(10, [Episode(0, float(monitor.step), 1)])
            said += [e for e in monitor.events(Parts()) if not isinstance(e, Checkpoint)]
        return said

    whole, first, second = make(), make(), make()
    expected = go(whole, 10)
    said = go(first, 4)
    second.restore(first.state())
    assert said + go(second, 6) == expected


def test_the_remaining_share_falls_from_one_to_zero():
    monitor = Monitor(Loop(steps=10, eval_every=0), lambda obs: obs, lambda worlds: None)
    assert monitor.remaining == 1.0
    monitor.count(4, [])
    assert monitor.remaining == pytest.approx(0.6)
    monitor.count(8, [])
    assert monitor.remaining == 0.0


def test_evaluations_are_of_whole_episodes():
    config = Loop(env="CartPole-v1", steps=20, eval_every=10, eval_episodes=4, seed=1)
    monitor = Monitor(config, lambda obs: np.ones(len(obs), np.int64), lambda worlds: None)
    monitor.count(10, [])
    (said,) = [event for event in monitor.events(Parts()) if isinstance(event, Evaluation)]
    assert 8 <= said.metrics["eval/return"] <= 11  # pushing one way: 8 to 10 steps
