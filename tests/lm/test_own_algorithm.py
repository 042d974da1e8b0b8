"""The algorithm of docs/algorithms/your_own.md, run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import plaudit
from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone
from plaudit.models.formats.load import load_language_model
from plaudit.ops import outcome_reward
from plaudit.records.events import Step
from plaudit.records.imports import load_module
from plaudit.records.sampling import Sampling
from tabular_roles import ONE_TOKEN, TableActor, TableReward, prompts_of
from tiny_job import FLAGS, REWARD, tiny_job
from tiny_models import tiny_llama

PAGE = Path(__file__).parents[2] / "docs" / "algorithms" / "your_own.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.S)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("page") / "your_own.py"
    file.write_text(blocks("python")[0])
    return vars(load_module(str(file), "algorithm"))


def model(folder: Path) -> Path:
    """A tiny model whose logits can stand out, which random embeddings are too short for."""
    weights = tiny_llama(folder, layers=2) / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"] *= 8
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_a_table_it_finds_the_best_answer(page, seed) -> None:
    reward = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)).double()
    actor = TableActor(torch.zeros(3, 5, dtype=torch.float64))
    config = page["ToyConfig"](num_steps=150, prompts_per_step=3, answers_per_prompt=64, lr=0.1)
    events = page["toy"](
        config,
        actor=actor,
        reward=TableReward(reward),
        prompts=prompts_of(3),
        sampling=ONE_TOKEN,
        seed=seed,
    )
    list(events)
    chance = actor.logits.detach().softmax(-1).gather(1, reward.argmax(1, keepdim=True))
    assert float(chance.min()) > 0.9


def test_on_a_model_the_reward_rises(page, tmp_path) -> None:
    lm = load_language_model(model(tmp_path / "model"))
    actor = LocalActor(SharedBackbone(lm, num_top_layers=1))

    def reward(batch):
        even = ((batch.token % 2 == 0) & batch.chosen).sum(1) / batch.chosen.sum(1)
        return outcome_reward(even, batch.chosen)

    events = page["toy"](
        page["ToyConfig"](num_steps=15, answers_per_prompt=16, lr=2e-2),
        actor=actor,
        reward=reward,
        prompts=[lm.codec.prompt(text) for text in ("hi", "What is a river?")],
        sampling=Sampling(max_new_tokens=6),
        seed=0,
    )
    scores = [event.metrics["objective/scores"] for event in events if isinstance(event, Step)]
    assert sum(scores[-3:]) / 3 > scores[0] + 0.1


def test_the_call_of_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys) -> None:
    """On a tiny model in the place of the embedded one."""
    algorithm, call = blocks("python")
    (tmp_path / "toy.py").write_text(algorithm)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert call.count('"smollm2"') == 1
    exec(
        compile(call.replace('"smollm2"', repr(str(model(tmp_path / "model")))), str(PAGE), "exec"),
        {},
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [step for step, _ in lines] == ["1", "2", "3", "4", "5"]
    assert all(1 <= float(length) <= 20 for _, length in lines)
    sys.modules.pop("toy")


def patched(source: Path) -> None:
    """The changes of the page's diff, made in a copy of the package: each place is found once."""
    [diff] = blocks("diff")
    for part in diff.split("--- src/plaudit/")[1:]:
        name, _, changes = part.partition("\n")
        text = (source / name).read_text()
        for hunk in changes.split("@@\n"):
            lines = hunk.splitlines()
            old = "\n".join(line[1:] for line in lines if line[0] in " -")
            new = "\n".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(f"\n{old}") == 1, old
            text = text.replace(f"\n{old}", f"\n{new}")
        (source / name).write_text(text)


def test_the_lines_of_the_page_make_it_a_way_to_improve(tmp_path) -> None:
    """In a copy of the package: the job runs, is checked, reported and shown by the new name."""
    package = Path(plaudit.__file__).parent
    shutil.copytree(
        package, tmp_path / "src" / "plaudit", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "src" / "plaudit" / "lm" / "toy.py").write_text(blocks("python")[0])
    patched(tmp_path / "src" / "plaudit")
    tiny_job(tmp_path)
    words = ["run", "rlhf", *FLAGS, *REWARD, "--improve", "toy", "--toy.num-steps", "2"]
    code = f"""
from plaudit.cli.main import main
for words in ({words!r} + ["--ppo.num-minibatches", "99", "--check"],
              {words!r} + ["--name", "one"], ["show", "one"]):
    assert main(words) == 0
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "  toy               2 steps of 32 answers to 4 prompts" in done.stdout
    assert "Note: ppo.num_minibatches is not used, as improve is toy" in done.stdout
    assert "  ppo  " not in done.stdout
    assert "toy: done, step 2" in done.stdout
    report = (tmp_path / "runs" / "one" / "report" / "index.html").read_text()
    assert "TOY step" in report
    assert "PPO" not in report.partition("The whole config")[0]
