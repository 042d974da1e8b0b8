"""Runs that another version left unfinished are refused in a sentence, and stay as they are."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

import plaudit
from plaudit.records.errors import UserError
from tiny_job import tiny_job


@pytest.mark.parametrize(
    ("stage", "said"), [("answers_train", "'token'"), ("reward_model", "'model/weight.'")]
)
def test_what_another_version_kept_is_refused(tmp_path, monkeypatch, stage, said) -> None:
    monkeypatch.chdir(tiny_job(tmp_path))
    run = plaudit.run(
        "rlhf",
        name="old",
        model="model",
        prompts="prompts.jsonl",
        reward="reward.py:vowels",
        num_held_out=4,
        num_top_layers=2,
        sampling={"max_new_tokens": 8},
        feedback={"answers_per_prompt": 6, "pairs_per_prompt": 8},
        ppo={"num_steps": 2, "prompts_per_step": 4},
    )
    for at, _ in run:
        if at == "ppo":
            break
    file = tmp_path / "runs" / "old" / "stages" / f"{stage}.safetensors"
    kept = load_file(file)
    names = {"token": "answer", "there": "mask"}
    save_file({names.get(n, n).replace("/", "."): x for n, x in kept.items()}, file)
    with pytest.raises(UserError, match=f"has no {said}: it was begun by another version"):
        plaudit.resume("old").result()
    assert file.exists()
