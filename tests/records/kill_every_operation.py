"""Kills a process with SIGKILL before each of its file operations in turn; run by test_runs.py.

For every k, a child saves over an old checkpoint and dies before its k-th operation on the file
system (seen by an audit hook, so that the code under test is untouched). What is left must load as
exactly the old state or exactly the new one, and must accept the next save.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import torch

from plaudit.records.checkpoints import SavedState, load_state, save_state

torch.set_num_threads(1)
warnings.simplefilter("ignore", DeprecationWarning)  # forking is what this script is for

WATCHED = ("open", "os.", "shutil.", "tempfile.")


def state(step: int) -> SavedState:
    return SavedState("ppo", step, {"w": torch.full((50,), float(step))}, {"n": step})


def die_before(count: int, inside: Path) -> None:
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(WATCHED) and any(str(inside) in str(arg) for arg in args):
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def main(root: Path) -> None:
    outcomes = set()
    for k in range(200):
        folder = root / str(k)
        link = folder / "last"
        save_state(link, state(1))
        child = os.fork()
        if child == 0:
            die_before(k, folder)
            save_state(link, state(2))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = load_state(link)
        assert found is not None, f"no checkpoint after a kill at operation {k}"
        assert found.step == found.facts["n"]
        assert found.step in (1, 2)
        assert torch.equal(found.arrays["w"], torch.full((50,), float(found.step)))
        save_state(link, state(3))
        again = load_state(link)
        assert again is not None
        assert again.step == 3
        assert len(list(folder.iterdir())) == 2, "a killed save left something behind"
        shutil.rmtree(folder)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            print(f"{k} operations, outcomes {sorted(outcomes)}")
            return
        outcomes.add(found.step)
    raise AssertionError("the save never finished")


main(Path(sys.argv[1]))
