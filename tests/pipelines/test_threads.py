"""One thread while entered, whatever there was before and after."""

from __future__ import annotations

import subprocess
import sys

import torch

from plaudit.pipelines.threads import one_thread, openblas

CODE = """
import torch
from plaudit.pipelines.threads import one_thread, openblas
torch.set_num_threads(2)
(get, change), = openblas()
change(2)
assert get() == 2, get()
with one_thread():
    assert (torch.get_num_threads(), get()) == (1, 1)
assert (torch.get_num_threads(), get()) == (2, 2)
"""


def test_both_libraries_have_one_thread_and_then_what_they_had():
    """In a process of its own, so that no other test runs on two threads."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_inside_gives_the_threads_back():
    before = torch.get_num_threads(), [get() for get, _ in openblas()]
    try:
        with one_thread():
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert (torch.get_num_threads(), [get() for get, _ in openblas()]) == before
