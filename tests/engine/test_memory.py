"""Freed activations stay with the process: no fresh pages for the next update."""

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
