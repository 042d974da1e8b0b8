"""Killed by SIGKILL at twenty random moments, training ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from plaudit.records.files import read_json, read_jsonl

SCRIPT = Path(__file__).parent / "kill_control.py"
NUM_KILLS = 20

JOBS = {
    "ppo": "control/ppo --env CartPole-v1 --steps 4096 --num-envs 4 --eval-every 1024",
    "dqn": "control/dqn --env CartPole-v1 --steps 1500 --learning-starts 200 --eval-every 500",
    "sac": "control/sac --env Pendulum-v1 --steps 400 --hidden 32 32 --batch-size 32"
    " --learning-starts 100 --eval-every 200",
}
COMMON = " --eval-episodes 4"


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_killed_twenty_times_and_resumed(tmp_path, name):
    words = shlex.split(JOBS[name] + COMMON)
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(NUM_KILLS), "1.0", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = json.loads(done.stdout)
    assert sum(runs.values()) >= NUM_KILLS
    whole = tmp_path / "whole"
    for run in runs:
        for kind in ("last", "best"):
            assert_same_checkpoint(
                whole / "checkpoints" / kind, tmp_path / run / "checkpoints" / kind
            )
        assert_same_arrays(whole / "model", tmp_path / run / "model", "model.safetensors")
        assert read_json(tmp_path / run / "results.json") == read_json(whole / "results.json")
        rows = [timeless(path / "metrics.jsonl") for path in (whole, tmp_path / run)]
        assert rows[0] == rows[1]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    assert read_json(one / "facts.json") == read_json(other / "facts.json")
    assert_same_arrays(one, other, "arrays.safetensors")


def assert_same_arrays(one: Path, other: Path, name: str) -> None:
    arrays, others = load_file(one / name), load_file(other / name)
    assert arrays.keys() == others.keys()
    for key, array in arrays.items():
        assert array.tobytes() == others[key].tobytes(), key


def timeless(path: Path) -> list[dict[str, object]]:
    """The lines of a log without the times of day and the seconds they took."""
    return [
        {k: v for k, v in row.items() if k not in ("time", "seconds")} for row in read_jsonl(path)
    ]
