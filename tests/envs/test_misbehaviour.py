"""An environment that misbehaves gives one sentence with its index and step; what was saved stays."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.strange_envs import Misbehaving
from plaudit.envs import guard
from plaudit.envs.guard import Clock, Hung
from plaudit.envs.make import make_worlds
from plaudit.envs.native import Native
from plaudit.envs.processes import Processes
from plaudit.envs.settings import WorldSettings
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("strange_envs.py"))

PATIENT = 600.0
"""Seconds that a good step may take, on a machine however busy."""

SENTENCES = {
    "nan reward": "gave the reward nan; a finite number is expected",
    "inf reward": "gave the reward -inf; a finite number is expected",
    "text reward": "gave the reward '1.0'; a finite number is expected",
    "no reward": "gave the reward None; a finite number is expected",
    "array reward": "gave the reward array([1.]); a finite number is expected",
    "nan obs": "gave an observation with nan at place 1; finite numbers are expected",
    "inf obs": "gave an observation with inf at place 0; finite numbers are expected",
    "wide obs": "gave an observation of shape (3,), not (2,)",
    "narrow obs": "gave an observation of shape (1,), not (2,)",
    "scalar obs": "gave an observation of shape (), not (2,)",
    "text obs": "gave an observation that is no array of numbers (array(['a', 'b'], dtype='<U1'))",
    "complex obs": "gave an observation that is no array of numbers"
    " (array([0.+0.j, 0.+0.j], dtype=complex64))",
    "no obs": "gave an observation that is no array of numbers (None)",
    "four": "gave a tuple of 4; (obs, reward, terminated, truncated, info) is expected",
    "none": "gave None; (obs, reward, terminated, truncated, info) is expected",
    "text flag": "gave terminated = 'no'; True or False is expected",
    "no flag": "gave truncated = None; True or False is expected",
    "raises": "raised ZeroDivisionError: the cart left the track",
}


def worlds_that(how, vector, num_envs=3, *, timeout=PATIENT, sleep=60.0):
    settings = WorldSettings(
        env=f"{FILE}:Misbehaving-v0",
        env_options={"how": how, "sleep": str(sleep)},
        num_envs=num_envs,
        vector=vector,
        step_timeout=timeout,
    )
    return make_worlds(settings, seed=0)


def misbehave(worlds, *, within=PATIENT):
    """Two good steps, then copy 1 misbehaves; what it says, and what was saved before.

    Only the last step must answer `within` so many seconds: on a busy machine a good one may not.
    """
    worlds.reset()
    for _ in range(2):
        worlds.step(np.zeros(3, np.int64))
    saved = worlds.state()
    wait_for(worlds, within)
    with pytest.raises(UserError) as caught:
        worlds.step(np.array([0, 1, 0]))
    wait_for(worlds, PATIENT)
    return caught.value, saved


def wait_for(worlds, seconds):
    """From now on a step may take so many seconds."""
    if isinstance(worlds, Processes):
        worlds._timeout = seconds
    else:
        worlds._clock.timeout = seconds
        worlds._clock.start()


@pytest.mark.parametrize("how", SENTENCES)
def test_one_sentence_with_index_and_step(how):
    worlds = worlds_that(how, "sync")
    error, saved = misbehave(worlds)
    where = f"{FILE}:Misbehaving-v0, environment 1, step 3 (step 3 of its episode): "
    assert str(error) == where + SENTENCES[how]
    if how == "raises":
        assert isinstance(error.__cause__, ZeroDivisionError)
    assert worlds.restore(saved).tolist() == [[2, 2]] * 3
    assert worlds.step(np.zeros(3, np.int64)).obs.tolist() == [[3, 3]] * 3
    worlds.close()


@pytest.mark.parametrize("how", ["nan reward", "nan obs", "wide obs", "raises"])
def test_the_same_sentence_from_another_process(how):
    worlds = worlds_that(how, "processes")
    error, saved = misbehave(worlds)
    worlds.close()
    assert str(error).endswith(f"environment 1, step 3 (step 3 of its episode): {SENTENCES[how]}")
    assert ("_wrong" in str(error.__cause__)) == (how == "raises")
    again = worlds_that("is good", "processes")
    assert again.restore(saved).tolist() == [[2, 2]] * 3
    again.close()


@pytest.mark.parametrize("vector", ["sync", "processes"])
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("reset raises", "its reset raised RuntimeError: no licence left"),
        ("reset gives no tuple", "its reset gave a ndarray; (obs, info) is expected"),
        ("reset gives nan", "its reset gave an observation with nan at place 1"),
    ],
)
def test_a_reset_that_misbehaves(vector, how, sentence):
    worlds = worlds_that(how, vector)
    with pytest.raises(UserError, match="environment 0, step 0: ") as caught:
        worlds.reset()
    assert sentence in str(caught.value)
    worlds.close()


@pytest.mark.parametrize("how", ["hangs", "spins"])
def test_a_step_that_hangs_in_this_process(how):
    worlds = worlds_that(how, "sync")
    began = time.monotonic()
    error, saved = misbehave(worlds, within=0.2)
    assert time.monotonic() - began >= 0.2
    assert "environment 1, step 3 (step 3 of its episode): did not answer within 0.2 s" in str(
        error
    )
    assert worlds.restore(saved).tolist() == [[2, 2]] * 3
    worlds.close()


def test_a_step_that_hangs_in_another_process():
    worlds = worlds_that("hangs", "processes", sleep=1e6)
    workers = list(worlds._workers)
    error, _ = misbehave(worlds, within=1.0)
    worlds.close()  # does not wait for the one that hangs
    assert not any(worker.is_alive() for worker in workers)
    assert "environment 1, step 3: did not answer within 1 s (step_timeout)" in str(error)


def test_a_process_that_dies():
    worlds = worlds_that("dies", "processes")
    error, _ = misbehave(worlds)
    assert "environment 1, step 3: its process ended with exit code 3" in str(error)
    worlds.close()


def test_a_process_that_is_killed():
    worlds = worlds_that("is good", "processes")
    worlds.reset()
    worlds._workers[2].kill()
    worlds._workers[2].join()
    with pytest.raises(UserError, match="environment 2, step 1: its process ended by signal 9"):
        worlds.step(np.zeros(3, np.int64))
    worlds.close()


def test_many_quick_steps_are_not_a_hung_one(monkeypatch):
    """In the process's own seconds, which stand still while others have the cores."""
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=time.process_time))
    worlds = worlds_that("is good", "sync", timeout=0.4)
    worlds.reset()
    until = time.process_time() + 1.0
    while time.process_time() < until:
        worlds.step(np.zeros(3, np.int64))
    while time.process_time() < until + 0.7:
        pass  # nor is time between the steps
    worlds.step(np.zeros(3, np.int64))
    worlds.close()


def test_worlds_in_a_thread_are_stepped_unwatched():
    found = []

    def work():
        worlds = worlds_that("is good", "sync", timeout=0.1)
        worlds.reset()
        found.append(worlds.step(np.zeros(3, np.int64)).obs.tolist())
        worlds.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[[1, 1]] * 3]


def test_the_alarm_is_given_back_and_others_are_left_alone():
    clock = Clock(5.0)
    clock.start()
    assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(1.25, abs=0.01)
    clock.stop()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def mine(number, frame):
        raise AssertionError

    signal.signal(signal.SIGALRM, mine)
    try:
        clock.start()
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        clock.stop()
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_a_clock_is_late_only_within_one_and_the_same_step():
    clock = Clock(10.0)
    assert not clock.is_late(0.0)
    clock.busy = True
    assert not clock.is_late(1.0)
    assert not clock.is_late(10.9)
    assert clock.is_late(11.0)
    clock.tick()
    assert not clock.is_late(12.0)
    clock.busy = False
    assert not clock.is_late(30.0)
    assert issubclass(Hung, BaseException)
    assert not issubclass(Hung, Exception)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nan reward", "environment 1, step 3: gave the reward nan"),
        ("nan obs", "environment 1, step 3: gave an observation with nan at place 1"),
        ("raises", "step 3: one of its 3 environments: its step raised ZeroDivisionError"),
        ("hangs", "step 3: one of its 3 environments: its step did not answer within 0.3 s"),
    ],
)
def test_a_native_vector_that_misbehaves(how, sentence):
    vector = SyncVectorEnv([lambda: Misbehaving(how)] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    worlds = Native(vector, name="Misbehaving", seed=0, timeout=PATIENT)
    error, _ = misbehave(worlds, within=0.3 if how == "hangs" else PATIENT)
    assert sentence in str(error)
    worlds.close()
