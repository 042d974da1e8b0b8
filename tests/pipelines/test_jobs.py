"""Jobs from Python: started, watched, stopped and resumed, and bit for bit the command's."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Evaluation, Rollout, Step
from tiny_job import FLAGS, REWARD, run_command, tiny_job

RLHF: dict[str, Any] = {
    "model": "model",
    "prompts": "prompts.jsonl",
    "reward": "reward.py:vowels",
    "num_held_out": 4,
    "num_top_layers": 2,
    "sampling": {"max_new_tokens": 8},
    "feedback": {"answers_per_prompt": 6, "pairs_per_prompt": 8},
    "ppo": {"num_steps": 3, "prompts_per_step": 4, "save_every": 2},
}
"""The keys of `tiny_job.FLAGS`, as Python says them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_job(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return made


def left_by(run: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What a run logged, without times, and the digests of the models it left."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"], row["seconds"]
    files = sorted([*run.glob("*/*.safetensors"), *run.glob("arrays/*.npy")])
    files = [file for file in files if "checkpoints" not in file.parts]
    return rows, {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def test_the_rlhf_job_from_python_is_the_commands_bit_for_bit(folder) -> None:
    """Once by the command, once watched to its end, once stopped in two stages and resumed."""
    assert run_command("run", "rlhf", *FLAGS, *REWARD, "--name", "command").code == 0
    wanted = left_by(folder / "runs" / "command")

    run = plaudit.run("rlhf", name="watched", **RLHF)
    heard = [(stage, type(event)) for stage, event in run]
    stages = list(dict.fromkeys(stage for stage, _ in heard))
    assert stages == [
        "answers_train", "answers_held_out", "feedback", "reward_model", "ppo", "answers_after",
    ]  # fmt: skip
    assert {Step, Rollout, Evaluation, Checkpoint} <= {kind for _, kind in heard}
    assert run.result()["win_rate"] == plaudit_results(run.path)["win_rate"]
    assert left_by(run.path) == wanted

    run = plaudit.run("rlhf", name="stopped", **RLHF)
    for stage, event in run:
        if stage == "reward_model" and isinstance(event, Step):
            run.stop()
    assert run.stopped
    with pytest.raises(UserError, match=r"the run was stopped: plaudit\.resume"):
        run.result()
    run = plaudit.resume("stopped")
    for stage, event in run:
        if stage == "ppo" and isinstance(event, Step) and event.step == 2:
            run.stop()
    assert run.stopped
    assert plaudit.resume(run.path).result()["kl"] == plaudit_results(run.path)["kl"]
    assert left_by(run.path) == wanted


def plaudit_results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_a_control_job_and_a_finite_one_go_on_bit_for_bit(folder) -> None:
    jobs = {
        "control/dqn": {"env": "CartPole-v1", "steps": 1500, "learning_starts": 200},
        "mdp/q_learning": {"num_steps": 60_000},
    }
    for recipe, keys in jobs.items():
        stem = recipe.replace("/", "-")
        whole = plaudit.run(recipe, name=f"{stem}-whole", **keys)
        results = whole.result()
        run = plaudit.run(recipe, name=f"{stem}-cut", **keys)
        for _, event in run:
            if isinstance(event, Checkpoint):
                run.stop()
        assert run.stopped
        run = plaudit.resume(run.path)
        told = [event for _, event in run]
        assert any(isinstance(event, Step) for event in told)
        again = run.result()
        assert left_by(run.path) == left_by(whole.path)
        seconds = {"seconds", "stage_seconds", "cpu_seconds", "stage_cpu_seconds"}
        assert {k: v for k, v in again.items() if k not in seconds} == {
            k: v for k, v in results.items() if k not in seconds
        }


def test_ctrl_c_in_a_loop_saves_and_says_how_to_go_on(folder) -> None:
    keys = {"num_steps": 60_000}
    run = plaudit.run("mdp/q_learning", name="pressed", **keys)
    seen, handler = [], signal.getsignal(signal.SIGINT)

    def watch() -> None:
        for _, event in run:
            seen.append(event)
            if isinstance(event, Step) and event.step > 0:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"plaudit\.resume\('runs/pressed'\) goes on"):
        watch()
    assert run.stopped
    assert isinstance(seen[-1], Checkpoint), "the loop went on to where all is saved"
    assert signal.getsignal(signal.SIGINT) is handler
    again = plaudit.resume("pressed")
    list(again)
    whole = plaudit.run("mdp/q_learning", name="not-pressed", **keys)
    whole.result()
    assert left_by(again.path) == left_by(whole.path)


def test_a_job_that_is_no_longer_heard_stops_where_it_can_go_on(folder) -> None:
    run = plaudit.run("rlhf", name="left", **RLHF)
    for stage, event in run:
        if stage == "reward_model" and isinstance(event, Step):
            break
    assert run.stopped
    assert plaudit.resume("left").result()["kl"] is not None


@pytest.mark.parametrize(
    ("recipe", "keys", "said"),
    [
        ("rlfh", {}, "rlhf"),
        ("rlhf", {"modle": "x"}, "modle.*model"),
        ("rlhf", {**RLHF, "ppo": {"num_stps": 3}}, "num_stps.*num_steps"),
        ("rlhf", {**RLHF, "num_top_layers": 31}, "num_top_layers is 31, but this model has 4"),
        ("rlhf", {**RLHF, "name": "a", "out": "b"}, "name and out both say where"),
    ],
)
def test_what_the_command_refuses_is_refused_and_nothing_is_left(
    folder, recipe, keys, said
) -> None:
    before = sorted((folder / "runs").glob("*")) if (folder / "runs").exists() else []
    with pytest.raises(UserError, match=f"(?s){said}"):
        plaudit.run(recipe, **keys).result()
    after = sorted((folder / "runs").glob("*")) if (folder / "runs").exists() else []
    assert after == before


def test_the_page_on_python_does_what_it_says(folder, tmp_path, monkeypatch, capsys) -> None:
    """Every block, in order, in an empty folder; a tiny model takes the place of the embedded one,
    which would take minutes."""
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "python.md"
    first, second, coin, job = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    assert first.count('"smollm2"') == 1
    run_block(first.replace('"smollm2"', repr(str(folder / "model"))))
    *steps, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["1", "2", "3"]
    assert last.endswith("see runs/first")

    run_block(second)
    stopped, went_on = capsys.readouterr().out.splitlines()
    assert stopped == "True"
    whole = plaudit.run("mdp/q_learning", name="whole", num_steps=60_000).result()
    assert went_on == f"{whole['policy_value']} False"

    Path("coin.py").write_text(coin)
    run_block(job)
    said = ast.literal_eval(capsys.readouterr().out)
    run = plaudit.run("coin.yaml", name="coin-cut", num_tosses=200)
    for _, event in run:
        if isinstance(event, Step) and event.step == 33:
            run.stop()
    assert run.stopped
    assert plaudit.resume("coin-cut").result() == said
    assert abs(said["heads"] - 0.9) < 4 * (0.09 / 200) ** 0.5


def run_block(text: str) -> None:
    """A block of a page, as a program of its own."""
    exec(compile(text, "docs/python.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(
    ("recipe", "keys", "said"),
    [
        ("rlhf", {"nme": "x"}, "unknown key 'nme' (the keyword argument nme); did you mean 'name'?"),
        ("rlhf", {"ppo": {"num_stps": 1}},
         "unknown key 'num_stps' in ppo (the keyword argument ppo); did you mean 'num_steps'?"),
        ("rlhf", {"ppo": {"num_steps": "many"}},
         "ppo.num_steps = 'many' (the keyword argument ppo): input should be a valid integer, "
         "unable to parse string as an integer"),
        ("rlhf", {"ppo": 3},
         "ppo = 3 (the keyword argument ppo): expected a dict of its keys, such as num_steps"),
        ("rlhf", {"improve": "pppo"},
         "improve = 'pppo' (the keyword argument improve): input should be 'ppo', 'grpo', 'rloo', "
         "'reinforce_pp', 'online_dpo' or 'best_of_n' (did you mean 'ppo'?)"),
        ("own.yaml", {"seed": 1},
         "ppo.num_steps = 'few' (file own.yaml, line 3): input should be a valid integer, unable "
         "to parse string as an integer"),
        ("own.yaml", {"ppo": {"lr": -1.0, "num_steps": 1}},
         "ppo.lr = -1.0 (the keyword argument ppo): input should be greater than 0"),
        ("flat.yaml", {}, "ppo = 3 (file flat.yaml, line 2): expected keys below it, such as "
         "num_steps"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told_of_as_it_was_given(tmp_path, monkeypatch, recipe, keys, said) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("pipeline: rlhf\nppo:\n  num_steps: few\n")
    Path("flat.yaml").write_text("pipeline: rlhf\nppo: 3\n")
    with pytest.raises(UserError) as refused:
        plaudit.run(recipe, **keys)
    assert str(refused.value) == said
    assert not Path("runs").exists()


def test_a_wrong_key_of_learn_is_told_of_as_it_was_given() -> None:
    wrong = r"unknown key 'stepss' \(the keyword argument stepss\); did you mean 'steps'\?$"
    with pytest.raises(UserError, match=wrong):
        plaudit.learn("ppo", "CartPole-v1", stepss=1)
    with pytest.raises(UserError, match=r"no algorithm 'control/ppo' \(did you mean 'ppo'\?\)$"):
        plaudit.learn("control/ppo", "CartPole-v1")
    with pytest.raises(UserError, match=r"no recipe 'a2c': .*\(did you mean 'control/a2c'\?\)"):
        plaudit.run("a2c")


def test_what_is_refused_leaves_no_folder_that_was_made_for_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {"prompts": "missing.jsonl"}
    for place in ({}, {"name": "first"}, {"out": "deep/down/first"}):
        with pytest.raises(UserError, match=r"missing\.jsonl"):
            plaudit.run("rlhf", **wrong, **place).result()
        assert list(tmp_path.iterdir()) == []
    Path("runs/other").mkdir(parents=True)
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        plaudit.run("rlhf", **wrong).result()
    assert [path.name for path in Path("runs").iterdir()] == ["other"]
    said = run_command("run", "rlhf", "--prompts", "missing.jsonl", "--name", "first")
    assert (said.code, said.out) == (2, ""), "no run folder is told of that is not there"


def test_a_finished_run_is_not_gone_on_with(folder) -> None:
    keys = {"num_steps": 2000}
    run = plaudit.run("mdp/q_learning", name="done", **keys)
    run.result()
    with pytest.raises(UserError, match="is finished"):
        plaudit.resume("done")
    with pytest.raises(UserError, match="iterate it once"):
        list(run)
