"""Freed activations stay with the process: no fresh pages for the next update, and no growth."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from plaudit.engine.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    return [torch.ones(2_000_000) for _ in range(20)]  # 8 MB each
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_repeated_work_takes_no_fresh_pages() -> None:
    """Three rounds of 160 MB are 117,000 pages of 4 KiB where nothing is kept."""
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("kept", "given back")
    }
    assert faults["kept"] < 5_000
    assert faults["kept"] <= faults["given back"]  # huge pages take few faults either way


STEPS = """
import resource
from pathlib import Path
import torch
from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.memory import keep_freed_memory
keep_freed_memory()
weight = torch.nn.Parameter(torch.ones(4))
learner = Learner({"weight": weight}, AdamConfig())
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 10**6
def step(num_arrays):
    activations = [torch.ones(2_000_000) for _ in range(num_arrays)]  # 8 MB each
    weight.grad = torch.ones(4)
    del activations
    learner.step(lr=0.0)
for _ in range(3):
    step(20)
before, steady = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, resident()
for _ in range(10):
    step(20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step(100)  # 800 MB, all of it freed
print(faults, steady, resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_steps_keep_what_the_next_needs_and_give_back_growth() -> None:
    """Ten steps of 160 MB are 390,000 pages where each begins with none; here they take those of the
    steps before. What a step of 800 MB freed does not stay."""
    told = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, check=True).stdout
    faults, steady, after = map(int, told.split())
    assert faults < 100_000
    assert after < steady + 50
