"""Killed by SIGKILL at twenty random moments, the job ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from plaudit.feedback.store import FeedbackStore
from plaudit.records.files import read_json, read_jsonl
from tiny_models import tiny_llama

SCRIPT = Path(__file__).parent / "kill_job.py"
NUM_KILLS = 20
FLAGS = shlex.split("""
    --num-held-out 10 --num-top-layers 2 --sampling.max-new-tokens 8
    --feedback.answers-per-prompt 32 --feedback.pairs-per-prompt 6
    --sft.batch-size 4 --sft.save-every 2 --reward-model.save-every 2
    --ppo.num-steps 5 --ppo.prompts-per-step 4 --ppo.save-every 2 --ppo.kl-target 0.5
""")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """(folder of all runs, what the script said)."""
    root = tmp_path_factory.mktemp("kills")
    tiny_llama(root / "model")
    prompts = [{"prompt": f"Write about cart number {i}."} for i in range(28)]
    wanted = [row | {"completion": "The cart keeps its pole upright."} for row in prompts[:12]]
    for name, rows in (("prompts", prompts), ("wanted", wanted)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "reward.py").write_text(
        "def vowels(prompts, completions):\n"
        "    return [sum(c in 'aeiou' for c in x) / max(len(x), 1) for x in completions]\n"
    )
    flags = ["--model", "model", "--prompts", "prompts.jsonl", "--reward", "reward.py:vowels"]
    flags += ["--demonstrations", "wanted.jsonl", *FLAGS]
    done = subprocess.run(
        [sys.executable, SCRIPT, root, str(NUM_KILLS), "1", *flags],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root, json.loads(done.stdout)


def test_twenty_kills_fall_into_every_stage(killed):
    _, said = killed
    assert len(said["kills"]) >= NUM_KILLS
    assert {kill["phase"] for kill in said["kills"]} == set(said["sizes"])
    assert {kill["by"] for kill in said["kills"]} == {"operation", "time"}


def test_weights_are_those_of_the_undisturbed_run(killed):
    root, said = killed
    names = [path.relative_to(root / "whole") for path in (root / "whole").rglob("*.safetensors")]
    kept = [name for name in names if "checkpoints" not in name.parts]
    assert {"model/model.safetensors", "reward_model/model.safetensors"} < {str(n) for n in kept}
    assert sum(name.parts[0] == "stages" for name in kept) == 6  # feedback keeps no arrays
    for run in said["runs"]:
        for name in kept:
            assert_same_tensors(root / "whole" / name, root / run / name)


def test_what_was_said_and_measured_is_that_of_the_undisturbed_run(killed):
    root, said = killed
    for run in said["runs"]:
        for name in ("metrics.jsonl", "samples.jsonl"):
            assert timeless(read_jsonl(root / run / name)) == timeless(
                read_jsonl(root / "whole" / name)
            )
        for name in ("answers.json", "results.json", "report/summary.json"):
            assert timeless(read_json(root / run / name)) == timeless(
                read_json(root / "whole" / name)
            )


def test_the_feedback_store_is_that_of_the_undisturbed_run(killed):
    root, said = killed
    digests = set()
    for run in ("whole", *said["runs"]):
        with FeedbackStore(root / run / "feedback.sqlite", create=False) as store:
            assert store.size()[1] > 100
            digests.add(store.content_digest())
    assert len(digests) == 1


def test_nothing_half_written_is_left(killed):
    root, said = killed

    def files(run):
        return {
            str(path.relative_to(root / run)).partition("last.")[0]
            for path in (root / run).rglob("*")
            if not path.name.startswith("feedback.sqlite-")
        }

    for run in said["runs"]:
        assert files(run) == files("whole")


def assert_same_tensors(first, second):
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype
        assert tensor.equal(b[name]), f"{second}: {name}"


def timeless(value):
    """The value without times, at any depth."""
    if isinstance(value, dict):
        times = ("time", "seconds", "stage_seconds", "cpu_seconds", "stage_cpu_seconds", "duration")
        return {k: timeless(v) for k, v in value.items() if k not in times}
    return [timeless(v) for v in value] if isinstance(value, list) else value
