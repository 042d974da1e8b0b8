"""One thread while entered, whatever there was before and after."""

from __future__ import annotations

import subprocess
import sys

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
