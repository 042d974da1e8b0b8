"""Every file that a user gives may be in another encoding than UTF-8: a sentence says which, and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plaudit.records.imports import load_module
from tiny_job import REWARD, run_command, tiny_job

JOB = ["run", "rlhf", "--model", "model", "--prompts", "prompts.jsonl", "--num-held-out", "4"]
JOB += ["--num-top-layers", "2"]
WORLD = '{"state": "é", "action": "go", "next_state": "é", "probability": 1, "reward": 0}\n'

CASES = {
    "recipe": ("my.yaml", "# é\npipeline: rlhf\n", ["run", "my.yaml"], "my.yaml, line 1: byte 0xe9"),
    "copied recipe": ("my.yaml", "a: 1\n# é\n", ["cp", "my.yaml", "new.yaml"], "my.yaml, line 2: byte 0xe9"),
    "template": (
        "x.jinja",
        "{# Vorlage #}\n{# é #}{{ messages }}",
        [*JOB, *REWARD, "--template", "x.jinja"],
        "x.jinja, line 2: byte 0xe9 is not UTF-8 text; save the file as UTF-8",
    ),
    "model's own template": ("model/chat_template.jinja", "{# é #}", [*JOB, *REWARD], "model"),
    "config": ("model/config.json", '{"a": "é"}', [*JOB, *REWARD], "model/config.json, line 1: byte 0xe9"),
    "generation config": ("model/generation_config.json", '{"a": "é"}', [*JOB, *REWARD], "generation_config.json"),
    "tokenizer": ("model/tokenizer.json", '{"a": "é"}', [*JOB, *REWARD], "no tokenizer that can be read"),
    "tokenizer config": ("model/tokenizer_config.json", '{"a": "é"}', [*JOB, *REWARD], "no tokenizer that can be read"),
    "prompts": ("p.jsonl", '{"prompt": "é"}\n', [*JOB, *REWARD, "--prompts", "p.jsonl"], "p.jsonl, line 1: byte 13"),
    "reward": (
        "r.py",
        "X = 'é'\ndef score(prompts, completions):\n    return [0.0 for _ in completions]\n",
        [*JOB, "--reward", "r.py:score"],
        "reward file r.py could not be read: SyntaxError",
    ),
    "reward module": ("own_reward.py", "X = 'é'\n", [*JOB, "--reward", "own_reward:score"], "could not be read: SyntaxError"),
    "environment": ("e.py", "X = 'é'\n", ["run", "control/ppo", "--env", "e.py:A-v0"], "environment file e.py could not be read: SyntaxError"),
    "environment module": ("own_env.py", "X = 'é'\n", ["run", "control/ppo", "--env", "own_env:A-v0"], "could not be read: SyntaxError"),
    "pomdp": ("w.pomdp", "# é\ndiscount: 1\n", ["run", "mdp/pomdp", "--world", "w.pomdp"], "w.pomdp, line 1: byte 0xe9"),
    "table": ("w.csv", "state,action\né,go\n", ["run", "mdp/solve", "--world", "w.csv", "--gamma", "0.9"], "w.csv, line 2: byte 0xe9"),
    "lines": ("w.jsonl", WORLD, ["run", "mdp/solve", "--world", "w.jsonl", "--gamma", "0.9"], "w.jsonl, line 1: byte 0xe9"),
    "feedback": ("f.jsonl", '{"prompt": "é"}\n', ["feedback", "import", "f.jsonl"], "f.jsonl, line 1: byte 13"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_file_in_latin_1_is_refused_in_a_sentence(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny_job(tmp_path)
    name, text, words, sentence = CASES[case]
    Path(name).write_bytes(text.encode("latin-1"))
    said = run_command(*words)
    assert said.code == 2, said
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not list(Path().glob("runs/*"))


def test_code_may_be_in_a_file_whose_name_is_no_text(tmp_path):
    """Called in Latin-1 on a system whose names are UTF-8."""
    file = tmp_path / os.fsdecode(b"\xe9.py")
    file.write_text("number = 7\n")
    assert load_module(str(file), "reward").number == 7


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark = b"\xef\xbb\xbf"
    Path("my.yaml").write_bytes(mark + b"pipeline: mdp/plan\nworld: w.csv\ngamma: 0.5\n")
    table = b"state,action,next_state,probability,reward\na,go,a,1,1\n"
    Path("w.csv").write_bytes(mark + table)
    assert run_command("run", "my.yaml", "--name", "one").code == 0
    Path("w.csv").unlink()
    Path("w.pomdp").write_bytes(mark + b"discount: 0.9\nvalues: reward\n")
    assert "mark" not in run_command("run", "mdp/pomdp", "--world", "w.pomdp").err
