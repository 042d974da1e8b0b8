"""One thread while entered, whatever was before and after; and the threads of a busy machine."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import Field

from plaudit.pipelines import threads as threads_module
from plaudit.pipelines.threads import free_threads, threads_left
from plaudit.records.config import Config
from plaudit.records.files import read_json
from plaudit.records.runs import RunFolder


class OneConfig(Config):
    one: int = Field(1, description="A number.")


CODE = """
import numpy, torch
from threadpoolctl import threadpool_info, threadpool_limits
from plaudit.pipelines.threads import one_thread

def threads():
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return torch.get_num_threads(), blas

torch.set_num_threads(2)
with threadpool_limits(2, user_api="blas"):
    before = threads()
    assert before[0] == 2, before
    with one_thread():
        assert threads() == (1, {1}), threads()
    assert threads() == before
    try:
        with one_thread():
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert threads() == before
"""


def test_both_libraries_have_one_thread_and_then_what_they_had():
    """In a process of its own, so that no other test runs on two threads."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("wanted", "cores", "busy", "threads"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),  # what a desktop does beside
        (2, 2, 1.0, 1),
        (2, 2, 7.5, 1),
        (4, 4, 2.1, 2),
        (2, 64, 30.0, 2),  # a share of a large machine, whose other cores are busy
        (32, 64, 40.0, 24),  # torch takes a thread for each of 32 cores of two threads
    ],
)
def test_a_job_takes_the_threads_that_other_work_leaves(wanted, cores, busy, threads):
    assert threads_left(wanted, cores, busy) == threads


def test_of_all_ticks_of_the_cores_some_are_busy():
    busy, total = threads_module._core_ticks()
    assert 0 < busy <= total
    assert threads_module.busy_cores() >= 0


@pytest.fixture
def two_threads(monkeypatch):
    """torch as it is on a machine of two cores where nobody has set OMP_NUM_THREADS."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module.os, "cpu_count", lambda: 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def threads_of(path, busy, monkeypatch, *, fresh=True):
    """(threads while entered, what was said) of a run begun or gone on with, with so many busy."""
    monkeypatch.setattr(threads_module, "busy_cores", lambda: busy)
    said: list[str] = []
    config = OneConfig()
    make = RunFolder.create(path, config, pipeline="x") if fresh else RunFolder.resume(path)
    with make as run, free_threads(run, said.append):
        return torch.get_num_threads(), said


def test_a_run_keeps_the_threads_it_was_begun_with(tmp_path, two_threads, monkeypatch):
    """Whatever the machine does later: two threads sum in another order than one."""
    number, said = threads_of(tmp_path / "busy", 1.2, monkeypatch)
    assert number == 1
    assert "keeps 1.2 cores busy: this run takes 1 of 2 threads" in said[0]
    assert torch.get_num_threads() == 2
    assert read_json(tmp_path / "busy" / "system.json")["threads"] == 1
    assert threads_of(tmp_path / "busy", 0.0, monkeypatch, fresh=False) == (1, [])
    assert threads_of(tmp_path / "idle", 0.0, monkeypatch) == (2, [])
    assert threads_of(tmp_path / "idle", 2.0, monkeypatch, fresh=False) == (2, [])


def test_omp_num_threads_wins_and_a_change_is_told(tmp_path, two_threads, monkeypatch):
    threads_of(tmp_path / "run", 1.2, monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    number, said = threads_of(tmp_path / "run", 1.2, monkeypatch, fresh=False)
    assert number == 2
    assert "asks for 2 threads, but the run was begun with 1" in said[0]
    assert threads_of(tmp_path / "new", 1.2, monkeypatch) == (2, [])
