"""A3C: one worker exactly, several as far as chance allows, and workers that fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from control.closed_worlds import STAY_VALUE
from control.runs import WORLDS, assert_goes_on, critic_of, trained
from plaudit.agents.agent import Agent
from plaudit.control.a3c import A3CConfig, Report, a3c, total_report
from plaudit.control.shared_weights import SharedWeights
from plaudit.envs.worlds import Episode
from plaudit.nets.optim import FlatRMSprop
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Step
from plaudit.records.state import part_of

MISBEHAVING = """
import os
import gymnasium as gym
import numpy as np


class Misbehaving(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, how="exit"):
        self.how, self.steps = how, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 300:
            if self.how == "exit":
                os._exit(3)
            raise ValueError("the axle broke")
        return np.zeros(1, np.float32), 1.0, False, False, {}


if "FaultyWorker-v0" not in gym.registry:
    gym.register("FaultyWorker-v0", Misbehaving, max_episode_steps=50)
"""


def shared_of(*sizes: int) -> tuple[SharedWeights, list[torch.Tensor]]:
    rng = np.random.default_rng(0)
    params = [torch.from_numpy(rng.standard_normal(n).astype(np.float32)) for n in sizes]
    return SharedWeights(params, num_workers=2, total=100), params


def test_the_shared_step_is_that_of_rmsprop():
    shared, params = shared_of(5, 3)
    optimiser = FlatRMSprop(params, lr=0.01)
    mine = [p.clone() for p in params]
    rng = np.random.default_rng(1)
    for _ in range(4):
        for p, own in zip(params, mine, strict=True):
            own.grad = torch.from_numpy(rng.standard_normal(len(p)).astype(np.float32))
            p.grad = own.grad.clone()
        optimiser.step()
        shared.descend(mine, 0.01)
    np.testing.assert_allclose(shared.params, np.concatenate(params), atol=1e-7)
    shared.copy_to(mine)
    np.testing.assert_array_equal(np.concatenate(mine), shared.params)


def test_counts_end_the_run_and_go_on_where_it_was_saved():
    shared, _ = shared_of(2)
    shared.count(0, 30)
    shared.count(1, 50)
    assert (shared.step, shared.remaining, shared.finished) == (80, pytest.approx(0.2), False)
    again, _ = shared_of(2)
    again.restore(shared.state())
    assert again.step == 80
    again.count(1, 20)
    assert again.finished
    stopped, _ = shared_of(2)
    stopped.stop()
    assert stopped.finished


def test_reports_are_added_up():
    episode = Episode(0, 7.0, 3)
    one, two = Report(20, [episode], {"lr": 1.0}), Report(30, [], {"lr": 2.0})
    assert total_report([one, two]) == Report(50, [episode], {"lr": 1.5})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"normalise_obs": True}, "several workers keep no statistics in common"),
        ({"vector": "processes"}, "each worker is a process already"),
    ],
)
def test_what_workers_cannot_share_is_refused(keys, said):
    with pytest.raises(UserError, match=said):
        A3CConfig(num_workers=2, **keys)


# --- one worker: here, and exactly


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_worker_finds_the_value_beyond_the_time_limit(seed):
    """Stay-v0 (trap 1): who takes its time limit for an end leaves, which is worth 6, not 10."""
    config = A3CConfig(
        env=WORLDS + "Stay-v0",
        steps=40_000,
        seed=seed,
        num_workers=1,
        num_envs=4,
        num_steps=10,
        gamma=0.9,
        lr=1e-2,
        max_grad_norm=10.0,
        eval_every=0,
    )
    agent, saved = trained(a3c, config)
    assert agent.act(0) == 0
    value = critic_of(config, saved).infer(np.eye(2, dtype=np.float32)[:1]).item()
    assert value == pytest.approx(STAY_VALUE, rel=1e-3)


@pytest.mark.parametrize(
    "keys", [{"env": "CartPole-v1"}, {"env": "Pendulum-v1", "normalise_obs": True, "num_envs": 2}]
)
def test_one_stopped_worker_goes_on_bit_for_bit(keys):
    keys = {"steps": 200, "num_workers": 1, "eval_every": 100, "eval_episodes": 2, **keys}
    assert_goes_on(a3c, A3CConfig(**keys))


# --- several workers


def test_two_workers_learn_and_go_on_from_what_was_saved():
    keys = {
        "env": WORLDS + "Bandit-v0",
        "num_workers": 2,
        "eval_every": 0,
        "lr_schedule": "constant",
    }
    config = A3CConfig(steps=30_000, num_envs=8, num_steps=2, lr=1e-2, **keys)
    events = list(a3c(config))
    saved = [event for event in events if isinstance(event, Checkpoint)][-1].state()
    assert isinstance(events[-1], Done)
    # Each of two workers may be in the middle of a round of 16 steps when the last is counted.
    assert 30_000 <= events[-1].step <= 30_000 + 2 * 16
    assert sum(isinstance(event, Step) for event in events) > 1
    agent = Agent.from_saved(part_of(saved, "agent"))
    assert (agent.act(0), agent.act(1)) == (1, 0)
    assert not multiprocessing.active_children()

    longer = config.model_copy(update={"steps": 31_000})
    resumed = a3c(longer, saved=saved)
    steps = [event.step for event in resumed if isinstance(event, Checkpoint)]
    assert steps == sorted(steps)
    assert events[-1].step <= steps[0] < 31_000 <= steps[-1] <= 31_000 + 2 * 16
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", r"worker \d of a3c died \(exit code 3\) at step \d+; the run can be resumed"),
        ("raise", "FaultyWorker-v0.*the axle broke"),
    ],
)
def test_a_worker_that_fails_is_one_sentence_after_a_place_to_resume_from(tmp_path, how, said):
    file = tmp_path / "misbehaving.py"
    file.write_text(MISBEHAVING)
    config = A3CConfig(
        env=f"{file}:FaultyWorker-v0",
        env_options={"how": how},
        steps=100_000,
        num_workers=2,
        eval_every=0,
    )
    last = None
    with pytest.raises(UserError, match=said):  # noqa: PT012 - the events before it matter
        for event in a3c(config):
            last = event
    assert isinstance(last, Checkpoint)
    assert last.due
    assert not multiprocessing.active_children()


INTERRUPTED = """
import sys
from plaudit.control.a3c import A3CConfig, a3c
from plaudit.records.events import Checkpoint
from plaudit.records.interrupt import Interrupt

if __name__ == "__main__":
    config = A3CConfig(steps=10_000_000, num_workers=2, eval_every=0)
    with Interrupt(lambda text: None) as interrupt:
        loop = a3c(config)
        for event in loop:
            print("going", event.step, flush=True)
            if isinstance(event, Checkpoint) and interrupt.requested:
                loop.close()
                break
    print("left", flush=True)
"""


def test_ctrl_c_reaches_the_parent_alone_and_the_workers_leave(tmp_path):
    """SIGINT to the whole group, as a terminal sends it."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    job = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert job.stdout is not None
    assert job.stdout.readline().startswith("going")
    os.killpg(job.pid, signal.SIGINT)
    said, errors = job.communicate()  # ends when the last worker has let go of the streams
    assert said.splitlines()[-1] == "left"
    assert job.returncode == 0
    assert "Traceback" not in errors
