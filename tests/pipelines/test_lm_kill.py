"""Killed by SIGKILL in the middle of learning, a language-model job ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines.lm_jobs import MODEL, lm_folder
from plaudit.records.files import read_json, read_jsonl

SCRIPT = Path(__file__).parent / "kill_lm_jobs.py"

RL = [
    "--prompts", "prompts.jsonl", "--num-held-out", "4", "--num-steps", "5", "--save-every", "2",
    "--prompts-per-step", "4", "--sampling.max-new-tokens", "6", "--reward", "judges.py:vowels",
    "--eval-every", "2", "--held-out-answers", "2",
]  # fmt: skip
LEARN = ["--lr", "1e-3", "--batch-size", "8", "--num-epochs", "2", "--save-every", "2"]

JOBS = {
    "sft": ["--data", "chats.jsonl", *LEARN],
    "dpo": ["--data", "pairs.jsonl", "--loss", "bco", "--eval-every", "2", *LEARN],
    "kto": ["--data", "labels.jsonl", *LEARN],
    "grpo": [*RL, "--refills", "1", "--entropy-coef", "0.01", "--entropy-target", "1"],
    "ppo": [*RL, "--critic-steps", "1", "--answers-per-prompt", "2"],
    "online_dpo": RL,
}

TIMES = {"time", "seconds", "cpu_seconds", "stage_seconds", "stage_cpu_seconds"}


OTHERS = pytest.param(("sft", "kto", "ppo", "online_dpo"), marks=pytest.mark.nightly)


@pytest.mark.parametrize("chosen", [("dpo", "grpo"), OTHERS])
def test_killed_jobs_end_in_the_same_bits(chosen: tuple[str, ...], tmp_path: Path) -> None:
    lm_folder(tmp_path)
    jobs = {job: [*MODEL, *JOBS[job]] for job in chosen}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, json.dumps(jobs)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ends = json.loads(done.stdout)
    for job, found in ends.items():
        assert found[-1] == 0, (job, found)
        assert -9 in found, (job, found)
        whole, killed = (tmp_path / f"{job}-{name}" for name in ("whole", "killed"))
        first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, killed))
        assert all(first[name].equal(second[name]) for name in first), job
        lines = [_timeless(read_jsonl(run / "metrics.jsonl")) for run in (whole, killed)]
        assert lines[0] == lines[1], job
        results = [_timeless([read_json(run / "results.json")]) for run in (whole, killed)]
        assert results[0] == results[1], job


def _timeless(rows):
    return [{name: x for name, x in row.items() if name not in TIMES} for row in rows]
