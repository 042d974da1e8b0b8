"""A resume checks what it is given: changed sources are named, and moved ones found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from plaudit.records.columns import read_rows
from plaudit.records.errors import UserError
from plaudit.records.files import read_json, read_jsonl, write_json
from plaudit.records.fingerprints import (
    SAMPLE,
    WHOLE,
    check_sources,
    imported_files,
    of_code,
    of_file,
    of_rows,
)
from plaudit.records.runs import RunFolder
from tiny_job import FLAGS, REWARD, run_command, tiny_job, write_rows
from tiny_models import CHATML

WORDS = [*FLAGS, *REWARD, "--feedback.source", "people", "--template", "turns.jinja"]
WORDS += ["--feedback.wait-seconds", "0"]
WORDS += ["--demonstrations", "wanted.jsonl", "--sft.num-epochs", "1"]
WAITING = 130
"""The exit code of a run that waits for votes: it found nothing to refuse."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project whose run waits for people's votes, all answers drawn."""
    folder = tiny_job(tmp_path_factory.mktemp("made") / "project")
    rows = [{"prompt": f"Write about cart number {i}.", "topic": "tea"} for i in range(12)]
    write_rows(folder / "prompts.jsonl", rows)
    (folder / "turns.jinja").write_text(CHATML)
    (folder / "reward.py").write_text("import counted\n\n" + (folder / "reward.py").read_text())
    (folder / "counted.py").write_text("WEIGHT = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        assert run_command("run", "rlhf", *WORDS, "--name", "one").code == WAITING
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it, as the working folder."""
    folder = shutil.copytree(made, tmp_path / "project")
    facts = folder / "runs" / "one" / "system.json"
    write_json(facts, read_json(facts) | {"folder": str(folder)})
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(made))  # where the reward finds its helper
    return folder


def contents(folder):
    """Every file of a run but its lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {file: file.read_bytes() for file in files if not file.name.startswith("feedback")}


def refused():
    """The sentence with which a resume is refused; nothing of the run was touched."""
    before = contents(Path("runs/one"))
    said = run_command("run", "--resume", "one")
    assert said.code == 2, said.err
    assert contents(Path("runs/one")) == before
    sentence, again = said.err.removeprefix("plaudit: ").split("\n", 1)
    assert again == "plaudit: once that is mended: plaudit run --resume runs/one\n"
    assert sentence.endswith(": put back what was there, or start a new run")
    return sentence.rpartition(":")[0]


def edit_rows(name, change):
    path = Path(name)
    rows = read_jsonl(path)
    write_rows(path, change(rows) or rows)


def scaled(name="model/model.safetensors"):
    tensors = load_file(name)
    first = sorted(tensors)[0]
    tensors[first] = tensors[first] * 1.01
    save_file(tensors, name, metadata={"format": "pt"})


def replaced(name, old, new):
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


# --- what has changed is named


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda: edit_rows("prompts.jsonl", lambda rows: rows[::-1]),
            "prompts.jsonl holds its rows in another order than when this run began (the first "
            "that differs is line 1)",
        ),
        (
            lambda: edit_rows(
                "prompts.jsonl", lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]]
            ),
            "prompts.jsonl holds its rows in another order than when this run began (the first "
            "that differs is line 7)",
        ),
        (
            lambda: edit_rows("prompts.jsonl", lambda rows: rows[4].update(prompt="Another?")),
            "prompts.jsonl has changed since this run began (the first that differs is line 5)",
        ),
        (
            lambda: edit_rows("prompts.jsonl", lambda rows: rows[4].update(topic="rain")),
            "prompts.jsonl has changed since this run began (the first that differs is line 5)",
        ),
        (
            lambda: edit_rows("prompts.jsonl", lambda rows: [*rows, {**rows[0], "prompt": "New?"}]),
            "prompts.jsonl has 13 rows, and had 12 when this run began (the first that differs is "
            "line 13)",
        ),
        (
            lambda: edit_rows("prompts.jsonl", lambda rows: rows[:-1]),
            "prompts.jsonl has 11 rows, and had 12 when this run began",
        ),
        (
            lambda: edit_rows("wanted.jsonl", lambda rows: rows[9].update(completion="Other.")),
            "wanted.jsonl has changed since this run began (the first that differs is line 10)",
        ),
        (
            lambda: replaced("reward.py", "aeiou", "aeiouy"),
            "reward.py has changed since this run began",
        ),
        (
            lambda: replaced("counted.py", "1", "2"),
            "counted.py has changed since this run began",
        ),
        (
            lambda: replaced("turns.jinja", "assistant", "model"),
            "turns.jinja has changed since this run began",
        ),
        (scaled, "model/model.safetensors has changed since this run began"),
        (
            lambda: (
                replaced("model/tokenizer_config.json", "<|endoftext|>", "<|im_start|>")
                if "<|endoftext|>" in Path("model/tokenizer_config.json").read_text()
                else replaced("model/tokenizer_config.json", "{", '{"more": 1,')
            ),
            "model/tokenizer_config.json has changed since this run began",
        ),
        (
            lambda: Path("model/generation_config.json").unlink(),
            "model/generation_config.json, which was there when this run began, is gone",
        ),
        (
            lambda: Path("model/added_tokens.json").write_text("{}"),
            "model/added_tokens.json was not there when this run began",
        ),
    ],
)
def test_a_changed_source_is_named_and_nothing_is_touched(project, change, sentence):
    change()
    assert refused() == sentence


def test_a_source_that_is_put_back_goes_on(project):
    kept = Path("prompts.jsonl").read_text()
    edit_rows("prompts.jsonl", lambda rows: rows[::-1])
    refused()
    Path("prompts.jsonl").write_text(kept)
    assert run_command("run", "--resume", "one").code == WAITING


def test_what_is_not_used_may_change(project):
    for file in (*Path("model").iterdir(), *Path().glob("*.*")):
        if file.is_file():
            os.utime(file, (1, 1))
    lines = [json.loads(line) for line in Path("prompts.jsonl").read_text().splitlines()]
    turned = (json.dumps(dict(reversed(row.items())), indent=None) for row in lines)
    Path("prompts.jsonl").write_text("\n\n".join(turned) + "\n")
    Path("model/README.md").write_text("New.")
    Path("other.py").write_text("import reward\n")
    said = run_command("run", "--resume", "one")
    assert said.code == WAITING
    notes = [line for line in said.out.splitlines() if line.startswith("Note")]
    assert all("held-out prompts are trained on too" in note for note in notes)  # of wanted.jsonl


def test_comparisons_that_have_changed_are_named(project):
    words = (*FLAGS, "--feedback.source", "file", "--feedback.file", "pairs.jsonl")
    assert run_command("run", "rlhf", *words, "--name", "two").code == 0
    Path("runs/two/results.json").unlink()
    edit_rows("pairs.jsonl", lambda rows: rows[2].update(chosen="gone", rejected="come"))
    said = run_command("run", "--resume", "two")
    assert said.code == 2
    assert (
        "pairs.jsonl has changed since this run began (the first that differs is line 3" in said.err
    )


def test_a_run_of_before_there_were_records_goes_on_with_a_note(project):
    Path("runs/one/sources.json").unlink()
    said = run_command("run", "--resume", "one")
    assert said.code == WAITING
    assert "Note: this run kept no record of its sources" in said.out
    edit_rows("prompts.jsonl", lambda rows: rows[::-1])  # from now on there is one
    refused()


def test_a_reward_that_failed_may_be_mended_and_that_is_told(project):
    words = ("--reward", "sometimes.py:sometimes", "--name", "two")
    Path("sometimes.py").write_text("def sometimes(prompts, completions):\n    return [1 / 0]\n")
    assert run_command("run", "rlhf", *FLAGS, *words).code == 2
    Path("sometimes.py").write_text(
        "def sometimes(prompts, completions):\n    return [float(len(c)) for c in completions]\n"
    )
    said = run_command("run", "--resume", "two")
    assert (said.code, said.err) == (0, "")
    assert "Note: sometimes.py has changed since this run began; what was done before" in said.out


# --- where things are


@pytest.mark.parametrize("where", ["runs/one", "elsewhere"])
def test_a_run_goes_on_from_another_working_folder(project, tmp_path, monkeypatch, where):
    other = tmp_path / "other"
    other.mkdir()
    run = project / "runs" / "one"
    if where == "elsewhere":
        run = Path(shutil.move(run, other / "kept"))
    monkeypatch.chdir(other)
    said = run_command("run", "--resume", os.path.relpath(run))
    assert said.code == WAITING, said.err
    assert f"plaudit run --resume {run}" in said.err
    assert Path.cwd() == other


def test_another_working_folder_does_not_hide_a_change(project, tmp_path, monkeypatch):
    edit_rows("prompts.jsonl", lambda rows: rows[::-1])
    monkeypatch.chdir(tmp_path)
    said = run_command("run", "--resume", "project/runs/one")
    assert said.code == 2
    assert "holds its rows in another order" in said.err


def test_a_project_that_was_moved_goes_on(project, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.move(project, tmp_path / "moved"))
    assert run_command("run", "--resume", "one").code == WAITING


# --- other jobs


TABLE = """state,action,next_state,probability,reward
a,go,b,1,{reward}
a,stay,a,1,0
"""
POMDP = """discount: 0.9
values: reward
states: 2
actions: 2
observations: 2
T: * identity
O: * uniform
R: * : * : * : * {reward}
"""
WORLD = """
import gymnasium
class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {{}}
    def step(self, action):
        return self.observation_space.sample() * 0, {reward}, True, False, {{}}
gymnasium.register("{name}-v0", Mine)
"""
FINITE = ["--gamma", "0.9", "--world", "world.csv"]


@pytest.mark.parametrize(
    ("job", "name", "text", "words"),
    [
        ("mdp/q_learning", "world.csv", TABLE, [*FINITE, "--num-steps", "100"]),
        ("mdp/pomdp", "world.pomdp", POMDP, ["--world", "world.pomdp", "--seconds", "1"]),
        (
            "control/reinforce",
            "mine.py",
            WORLD,
            ["--env", "mine.py:Kept-v0", "--steps", "64", "--eval-every", "0"],
        ),
    ],
)
def test_a_changed_world_is_named(tmp_path, monkeypatch, job, name, text, words):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text.format(reward=1.0, name="Kept"))
    done = run_command("run", job, *words, "--name", "one")
    assert done.code == 0, done.err
    Path("runs/one/results.json").unlink()
    Path(name).write_text(text.format(reward=2.0, name="Kept"))
    assert refused() == f"{name} has changed since this run began"
    if job != "control/reinforce":  # what is left is the same for all
        return
    Path(name).write_text(text.format(reward=1.0, name="Kept"))
    monkeypatch.chdir("/")
    done = run_command("run", "--resume", str(tmp_path / "runs" / "one"))
    assert done.code == 0, done.err


# --- digests


def test_of_code_are_the_files_beside_it_that_it_imports(tmp_path):
    for name in ("a", "b", "c", "unused", "pack/__init__", "pack/inner", "json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "a.py").write_text("import os, b\n\ndef f():\n    from pack import inner\n")
    (tmp_path / "b.py").write_text("from . import c\nfrom json import loads\nimport a\n")
    found = {str(path.relative_to(tmp_path)) for path in imported_files(tmp_path / "a.py")}
    assert found == {"a.py", "b.py", "c.py", "json.py", "pack/__init__.py", "pack/inner.py"}
    before = of_code(tmp_path / "a.py")
    (tmp_path / "unused.py").write_text("x = 1")
    assert of_code(tmp_path / "a.py").same(before)
    (tmp_path / "pack" / "inner.py").write_text("x = 1")
    assert not of_code(tmp_path / "a.py").same(before)


def test_a_large_file_is_sampled_from_end_to_end(tmp_path):
    path = tmp_path / "weights"
    data = bytearray(WHOLE + 12345)
    path.write_bytes(data)
    before = of_file(path)
    for place in (0, SAMPLE - 1, len(data) - 1, len(data) - SAMPLE):
        changed = data.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        assert not of_file(path).same(before), place
    path.write_bytes(data + b"\0")
    assert not of_file(path).same(before)
    path.write_bytes(data)
    assert of_file(path).same(before)


def test_what_was_recorded_reads_back_equal(tmp_path):
    rows = read_rows([{"a": 1, "b": [None, "ü"]}, {"a": 2, "b": {"c": 0.1}}])
    with RunFolder.resume(made_run(tmp_path)) as run:
        check_sources(run, {"rows": of_rows(rows)}, print)
        check_sources(run, {"rows": of_rows(rows)}, print)
        with pytest.raises(
            UserError, match=r"another order .* \(the first that differs is row 1\)"
        ):
            check_sources(run, {"rows": of_rows(read_rows(list(rows[::-1])))}, print)


def made_run(folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("pipeline: walk\n")
    return folder / "run"


def test_relative_imports_of_a_package_are_found(tmp_path):
    """`from . import b`, `from .h import z`, and the package's own file, from beside the reward."""
    from plaudit.records.fingerprints import imported_files

    package = tmp_path / "pkg"
    (package / "deep").mkdir(parents=True)
    (tmp_path / "reward.py").write_text("from pkg.a import f\nfrom pkg.deep.d import g\n")
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from . import b\nfrom .h import z\n")
    (package / "b.py").write_text("")
    (package / "h.py").write_text("")
    (package / "deep" / "d.py").write_text("from ..up import u\n")
    (package / "up.py").write_text("")
    found = {str(f.relative_to(tmp_path)) for f in imported_files(tmp_path / "reward.py")}
    wanted = {"__init__", "a", "b", "h", "up", "deep/d"}
    assert found == {"reward.py", *(f"pkg/{name}.py" for name in wanted)}
