"""Every language-model job as a user runs it, on a tiny model: results, refusals, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import plaudit
from pipelines.lm_jobs import MODEL, lm_folder
from plaudit.records.errors import UserError
from tiny_job import Said, run_command

OFFLINE = {
    "sft": ["--data", "chats.jsonl", "--num-epochs", "2", "--batch-size", "4", "--lr", "1e-2"],
    "reward": ["--data", "pairs.jsonl", "--num-epochs", "2"],
    "dpo": ["--data", "pairs.jsonl", "--lr", "1e-2", "--batch-size", "8", "--num-epochs", "2"],
    "simpo": ["--data", "pairs.jsonl", "--lr", "1e-2", "--batch-size", "8"],
    "orpo": ["--data", "pairs.jsonl", "--lr", "1e-2", "--batch-size", "8"],
    "kto": ["--data", "labels.jsonl", "--lr", "1e-2", "--batch-size", "16", "--num-epochs", "2"],
}

SHORT = [
    "--prompts", "prompts.jsonl", "--num-held-out", "4", "--num-steps", "3",
    "--prompts-per-step", "4", "--sampling.max-new-tokens", "8", "--save-every", "1",
    "--held-out-answers", "2",
]  # fmt: skip

ONLINE = {
    "ppo": ["--answers-per-prompt", "2", "--reward", "judges.py:vowels"],
    "grpo": ["--reward", "judges.py:vowels", "judges.py:brief", "--weights", "1", "0.2"],
    "rloo": ["--reward", "judges.py:unsure"],
    "reinforce_pp": ["--reward", "judges.py:slow"],
    "online_dpo": ["--reward", "judges.py:vowels"],
    "best_of_n": ["--reward", "judges.py:vowels"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lm_folder(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def run(job: str, *words: str, name: str) -> Said:
    return run_command("run", job, *MODEL, *words, "--name", name)


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path("runs") / name / "results.json").read_text())
    return found


@pytest.mark.parametrize("job", OFFLINE)
def test_a_job_learns_from_a_file(job: str, inside: Path) -> None:
    done = run(job, *OFFLINE[job], "--eval-every", "2", name=job)
    assert done.code == 0, done.err
    found = results(job)
    page = (Path("runs") / job / "report" / "index.html").read_text()
    assert "Figures" in page
    if job == "reward":
        assert found["reward_model_accuracy"] > 0.9
        AutoModelForSequenceClassification.from_pretrained(f"runs/{job}/reward_model")
        return
    AutoModelForCausalLM.from_pretrained(f"runs/{job}/model")
    assert found["loss_after"] < found["loss_before"]
    if job in ("dpo", "simpo", "orpo"):
        assert found["accuracy"] > 0.9
        assert found["margin_interval"][0] > 0
    if job == "kto":
        assert found["reward/good"] > 0 > found["reward/bad"]


@pytest.mark.parametrize("job", ONLINE)
def test_a_job_learns_from_rewards(job: str, inside: Path) -> None:
    done = run(job, *SHORT, *ONLINE[job], "--eval-every", "2", name=job)
    assert done.code == 0, done.err
    found = results(job)
    AutoModelForCausalLM.from_pretrained(f"runs/{job}/model")
    assert {"reward_before", "reward_after", "kl", "length_after"} <= found.keys()
    rows = [json.loads(x) for x in (Path("runs") / job / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in rows if r["stage"] == job and r["event"] == "step"]
    assert len(steps) == 3
    assert all("groups/with_signal" in r for r in steps) or job == "ppo"
    looks = [r for r in rows if r["event"] == "evaluation"]
    assert {r["step"] for r in looks} == {0, 2, 3}
    if job == "grpo":
        assert all({"reward/vowels", "reward/brief"} <= r.keys() for r in steps)
    if job == "rloo":
        assert all(0.5 < r["answer/judged"] < 0.8 for r in steps)


@pytest.mark.parametrize("improve", ["grpo", "rloo", "reinforce_pp", "online_dpo", "best_of_n"])
def test_the_whole_job_with_another_improver(improve: str, inside: Path) -> None:
    words = [
        "--prompts", "prompts.jsonl", "--num-held-out", "4", "--num-top-layers", "2",
        "--sampling.max-new-tokens", "8", "--feedback.answers-per-prompt", "6",
        "--feedback.pairs-per-prompt", "8", "--reward", "reward.py:vowels",
        "--improve", improve, f"--{improve}.num-steps", "2", f"--{improve}.prompts-per-step", "4",
    ]  # fmt: skip
    done = run_command("run", "rlhf", "--model", "model", *words, "--name", f"rlhf-{improve}")
    assert done.code == 0, done.err
    assert results(f"rlhf-{improve}")["win_rate"] is not None
    page = (Path("runs") / f"rlhf-{improve}" / "report" / "index.html").read_text()
    assert f"One point a {improve.upper()} step" in page


def test_a_profile_changes_definitions(inside: Path) -> None:
    done = run("grpo", *SHORT, *ONLINE["grpo"], "--like", "dr_grpo", "--num-steps", "1", name="dr")
    assert done.code == 0, done.err
    config = (Path("runs") / "dr" / "config.yaml").read_text()
    assert 'scale: "none"' in config
    assert "denominator: constant" in config
    wrong = run("grpo", *SHORT, "--like", "dr_grop", name="wrong")
    assert wrong.code == 2
    assert "did you mean 'dr_grpo'" in wrong.err


def test_rewards_that_fail(inside: Path) -> None:
    short = [*SHORT, "--num-steps", "1"]
    done = run("grpo", *short, "--reward", "judges.py:fails", name="fails")
    assert done.code == 0, done.err
    rows = [json.loads(x) for x in Path("runs/fails/metrics.jsonl").read_text().splitlines()]
    step = next(r for r in rows if r["stage"] == "grpo" and r["event"] == "step")
    assert step["reward/fails/failed"] > 0
    assert step["answer/judged"] < 1
    done = run(
        "grpo", *short, "--reward", "judges.py:hangs", "--reward-timeout", "0.2", name="hangs"
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reward", "judges.py:vowel"], "did you mean 'vowels'"),
        (["--reward", "vowels"], "is neither a function (module:function"),
        (
            ["--reward", "judges.py:vowels", "--weights", "1", "2"],
            "there are 2 weights for 1 reward",
        ),
        (
            ["--reward", "judges.py:vowels", "--reward-timeout", "2"],
            "timeout is the time of one answer",
        ),
        (["--sampling.temperature", "0"], "all answers to a prompt are equal"),
        (["--num-minibatches", "9"], "num_minibatches is 9, but a step has only 4 prompts"),
        (["--num-held-out", "12"], "none is left to train on"),
        (["--loss", "gspo"], "loss gspo is of whole answers: set denominator to answer"),
        (["--sampler-precision", "int8"], "give importance_cap"),
    ],
)
def test_what_is_refused(words: list[str], said: str, inside: Path) -> None:
    done = run("grpo", *SHORT, *words, name="refused")
    assert done.code == 2, done.out
    assert said in done.err
    assert not Path("runs/refused").exists()


@pytest.mark.parametrize(
    ("job", "words", "said"),
    [
        ("dpo", [], "missing key 'data'"),
        ("dpo", ["--data", "labels.jsonl"], "labels.jsonl, line 1"),
        ("dpo", ["--data", "pairs.jsonl", "--loss", "dpoo"], "did you mean 'dpo'"),
        ("dpo", ["--data", "pairs.jsonl", "--max-length", "5"], "longer than 5 tokens"),
        ("kto", ["--data", "good.jsonl"], "every answer is called good"),
        ("sft", ["--data", "prompts.jsonl"], "no column 'completion'"),
    ],
)
def test_what_is_refused_of_files(job: str, words: list[str], said: str, inside: Path) -> None:
    row = {"prompt": "Hi", "completion": "ho", "label": True}
    Path("good.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"prompt": "Ha"}) + "\n"
    )
    done = run(job, *words, name="refused")
    assert done.code == 2, done.out
    assert said in done.err
    assert not Path("runs/refused").exists()


def test_tune_from_python(inside: Path) -> None:
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    tuned = plaudit.tune(
        "dpo", model="model", data=rows, num_top_layers=2, lr=1e-2, batch_size=8, name="tuned"
    )
    assert tuned["accuracy"] > 0.9
    AutoModelForCausalLM.from_pretrained(tuned.model)
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        tuned["acuracy"]
    with pytest.raises(UserError, match="did you mean 'dpo'"):
        plaudit.tune("dpoo", data=rows)
    with pytest.raises(UserError, match="stands in no file by its name"):
        plaudit.tune("grpo", model="model", reward=lambda prompts, completions: [0.0])


def test_a_reward_model_judges_in_grpo(inside: Path) -> None:
    made = run("reward", *OFFLINE["reward"], name="judge")
    assert made.code == 0, made.err
    done = run("grpo", *SHORT, "--reward", "runs/judge/reward_model", name="by-model")
    assert done.code == 0, done.err
    assert results("by-model")["reward_before"] is not None


def test_repeated_rewards_add_up(inside: Path) -> None:
    words = ["--reward", "judges.py:vowels", "--reward", "judges.py:brief"]
    done = run("grpo", *SHORT, *words, "--num-steps", "1", name="two")
    assert done.code == 0, done.err
    config = (Path("runs") / "two" / "config.yaml").read_text()
    assert '"judges.py:vowels", "judges.py:brief"' in config.replace("[", "").replace("]", "")
