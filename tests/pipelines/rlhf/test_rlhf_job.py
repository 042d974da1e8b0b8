"""The whole job through the command line, with every source of feedback, and what it leaves."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plaudit.feedback.entries import comparison_vote
from plaudit.feedback.store import FeedbackStore
from plaudit.pipelines.glossary import meaning
from plaudit.pipelines.pages.report import SUMMARY_KEYS
from plaudit.pipelines.rlhf.metrics import RESULTS
from plaudit.records.files import read_json, read_jsonl
from plaudit.records.runs import RunFolder
from tiny_job import FLAGS, REWARD, run_command, tiny_job, write_rows

RUN = ("run", "rlhf", *FLAGS)
STANDALONE = Path(__file__).parent / "load_standalone.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that holds the job's files, as the working folder."""
    made = tiny_job(tmp_path_factory.mktemp("job"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        yield made


@pytest.fixture(scope="module")
def one(folder):
    """A finished run that learned from the reward function."""
    done = run_command(*RUN, *REWARD, "--name", "one")
    assert done.code == 0, done.err
    return folder / "runs" / "one", done


def finished(name):
    """The summary of a run, after what must hold for every run."""
    run = Path("runs", name)
    summary = read_json(run / "report" / "summary.json")
    assert set(SUMMARY_KEYS) <= set(summary)
    assert RunFolder.open(name).results.keys() >= set(summary) - set(SUMMARY_KEYS)
    page = (run / "report" / "index.html").read_text()
    outside = re.findall(r'(?:src|href)\s*=\s*"(?!data:|#)([^"]*)"|url\((?!#)|@import', page)
    assert not [link for link in outside if not link.startswith("../")], outside
    assert "<script src" not in page
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)
    for kind in ("model", "reward_model"):
        assert (run / kind / "model.safetensors").is_file()
    return summary


def weights(name):
    """Every tensor that a run leaves for its user."""
    return {
        f"{kind}/{key}": tensor
        for kind in ("model", "reward_model")
        for key, tensor in load_file(Path("runs", name, kind, "model.safetensors")).items()
    }


def assert_same_run(first, second):
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert not [key for key in a if not a[key].equal(b[key])]
    assert timeless(first) == timeless(second)


def timeless(name):
    rows = read_jsonl(Path("runs", name, "metrics.jsonl"))
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


# --- sources of feedback


def test_a_reward_function_teaches(one):
    _, done = one
    assert done.err == ""
    assert "Report: runs/one/report/index.html" in done.out
    summary = finished("one")
    assert summary["gold_before"] is not None
    low, high = summary["win_rate_interval"]
    assert low <= summary["win_rate"] <= high
    stages = ["answers_train", "answers_held_out", "feedback", "reward_model", "ppo"]
    assert list(summary["stage_seconds"]) == [*stages, "answers_after"]  # in the order of the job
    assert summary["feedback"]["num_votes"] == summary["feedback"]["num_items"]
    assert list(summary["feedback"]["by_rater"]) == ["reward.py:vowels"]


def test_every_result_has_a_place_and_a_meaning_and_changes_are_differences(one):
    summary = finished("one")
    numbers = [name for name, value in summary.items() if isinstance(value, int | float)]
    assert set(numbers) <= set(RESULTS)
    assert all(meaning(name) for name in numbers)
    for kind in ("gold", "reward"):
        change = summary[f"{kind}_after"] - summary[f"{kind}_before"]
        assert summary[f"{kind}_change"] == pytest.approx(change)
        low, high = summary[f"{kind}_change_interval"]
        assert low <= summary[f"{kind}_change"] <= high


def test_votes_are_those_of_the_reward_function(one):
    path, _ = one
    vowels = lambda text: sum(c in "aeiou" for c in text) / len(text)  # noqa: E731
    with FeedbackStore(path / "feedback.sqlite", create=False) as store:
        said = store.comparisons()
    assert len(said) > 60
    for c in said:
        a, b = vowels(c.a), vowels(c.b)
        assert c.preference == ("tie" if a == b else "a" if a > b else "b")


def test_a_file_of_comparisons_teaches(folder):
    words = ("--feedback.source", "file", "--feedback.file", "pairs.jsonl")
    done = run_command(*RUN, *words, "--name", "file")
    assert (done.code, done.err) == (0, "")
    summary = finished("file")
    assert summary["win_rate"] is None  # nobody is the gold judge
    assert summary["reward_win_rate"] is not None
    assert summary["reward_model_accuracy"] == 1.0  # praise against blame, six fixed sentences
    assert "feedback" not in summary["stage_seconds"]


def test_annotators_teach_after_demonstrations(folder):
    words = ["--num-top-layers", "4", "--demonstrations", "wanted.jsonl"]
    words += ["--sft.num-epochs", "15", "--sft.lr", "1e-2"]
    words += ["--sampling.max-new-tokens", "16", "--feedback.num-annotators", "3"]
    words += ["--feedback.answers-per-prompt", "12", "--feedback.pairs-per-prompt", "24"]
    words += [
        "--ppo.num-steps",
        "10",
        "--ppo.prompts-per-step",
        "8",
        "--ppo.answers-per-prompt",
        "8",
    ]
    words += ["--ppo.lr", "1e-3", "--ppo.critic-lr", "1e-3"]
    done = run_command(*RUN, *words, "--name", "annotators")
    assert (done.code, done.err) == (0, "")
    summary = finished("annotators")
    assert set(summary["feedback"]["by_rater"]) == {f"annotator-{i}" for i in range(3)}
    assert summary["feedback"]["num_votes"] == 2 * summary["feedback"]["num_items"]
    assert summary["feedback"]["agreement"]["krippendorff"] is not None
    # Praise and blame were shown equally often; people's opinions of the answers tip the scale.
    assert summary["win_rate_interval"][0] > 0.5
    assert summary["gold_after"] > summary["gold_before"] + 0.1
    loss = [
        row["loss"]
        for row in read_jsonl(Path("runs/annotators/metrics.jsonl"))
        if row["stage"] == "sft"
    ]
    # One of six wanted answers of 3 to 12 tokens, each as likely: far below a random model's ln V.
    assert loss[0] > 4
    assert loss[-1] < 1.5


def test_people_are_waited_for_and_their_votes_finish_the_job(folder):
    at_once = ("--feedback.wait-seconds", "0")
    done = run_command(*RUN, "--feedback.source", "people", *at_once, "--name", "people")
    assert done.code == 130
    assert done.err.count("\n") == 1
    assert "pairs wait for people's votes in runs/people/feedback.sqlite" in done.err
    assert "of at least 20" in done.err
    assert done.err.endswith("Continue with: plaudit run --resume runs/people\n")

    def vote(items):
        votes = []
        for item in items:
            first, second = (str(segment.text) for segment in item.segments)
            said = "a" if first.count("e") >= second.count("e") else "b"
            votes.append(comparison_vote(item.key, "Ada", said, seconds=2.5))
        with FeedbackStore("runs/people/feedback.sqlite", create=False) as store:
            store.add_votes(votes)

    with FeedbackStore("runs/people/feedback.sqlite", create=False) as store:
        items = store.items()
    train = [item for item in items if item.segments[0].extra["split"] == "train"]
    vote(train[:5])
    too_few = run_command("run", "--resume", "people")
    assert too_few.code == 130
    assert "are 5 of 96 wanted (5 on training prompts, of at least 20, and 0 on" in too_few.err
    vote(item for item in items if item not in train[:5])
    done = run_command("run", "--resume", "people")
    assert (done.code, done.err) == (0, "")
    summary = finished("people")
    assert list(summary["feedback"]["by_rater"]) == ["Ada"]
    assert summary["feedback"]["num_votes"] == len(items)
    assert summary["win_rate"] is None


def test_columns_reach_the_reward_and_renames_hold_for_the_files_that_need_them(folder):
    rows = [
        {"question": f"Speak of {t}.", "topic": t} for t in ("rain", "tea", "stone", "moss") * 3
    ]
    write_rows(folder / "topics.jsonl", rows)  # the demonstrations say prompt, and keep it
    words = ["--prompts", "topics.jsonl", "--columns", "prompt=question"]
    words += ["--reward", "reward.py:on_topic", "--demonstrations", "wanted.jsonl"]
    words += ["--sft.num-epochs", "1", "--name", "topics"]
    done = run_command(*RUN, *words)
    assert (done.code, done.err) == (0, "")
    finished("topics")
    topic = {row["question"]: row["topic"] for row in rows}
    for row in read_json(Path("runs/topics/answers.json"))["answers"]:
        letters = sum(c in topic[row["prompt"]] for c in row["before"])
        assert row["gold_before"] == pytest.approx(letters / max(len(row["before"]), 1))


def test_equal_prompts_with_different_columns_are_each_judged_by_their_own(folder):
    """Some want vowels, the others want none; the columns have names that a job has for itself."""
    signs = [1, -1] * 6
    rows = [{"prompt": "Same question?", "rows": sign, "split": "mine"} for sign in signs]
    write_rows(folder / "same.jsonl", rows)
    Path("signed.py").write_text(
        "from reward import vowels\n"
        "def signed(prompts, completions, rows, split):\n"
        "    assert set(split) == {'mine'}\n"
        "    return [sign * x for sign, x in zip(rows, vowels(prompts, completions), strict=True)]\n"
    )
    words = ["--prompts", "same.jsonl", "--reward", "signed.py:signed", "--name", "same"]
    done = run_command(*RUN, *words)
    assert (done.code, done.err) == (0, "")
    finished("same")

    def score(text, sign):
        return sign * sum(c in "aeiou" for c in text) / max(len(text), 1)

    with FeedbackStore("runs/same/feedback.sqlite", create=False) as store:
        said = store.comparisons()
    assert {c.columns["rows"] for c in said if c.preference == "a"} == {1, -1}
    for c in said:
        a, b = score(c.a, c.columns["rows"]), score(c.b, c.columns["rows"])
        assert c.preference == ("tie" if a == b else "a" if a > b else "b")
    for row in read_json(Path("runs/same/answers.json"))["answers"]:
        assert row["gold_after"] == pytest.approx(
            score(row["after"], signs[8 + row["prompt_number"]])
        )
    assert "On 4 held-out prompts" in Path("runs/same/report/index.html").read_text()


# --- what a run leaves


def test_plain_transformers_gives_the_same_numbers(one):
    path, _ = one
    answers = read_json(path / "answers.json")["answers"]
    out = path / "standalone.safetensors"
    done = subprocess.run([sys.executable, STANDALONE, path, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs, ours = load_file(out), load_file(path / "stages" / "answers_after.safetensors")
    # What the sampler drew with, against a plain forward pass of the saved folder.
    torch.testing.assert_close(theirs["logp"], ours["logp"], atol=1e-5, rtol=0)
    reward = torch.tensor([row["reward_after"] for row in answers])
    torch.testing.assert_close(theirs["score"], reward, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs["score_padded"], reward, atol=1e-5, rtol=0)
    assert reward.std() > 1e-3  # else equality would say little


def test_the_saved_config_runs_again_to_the_same_weights(one):
    path, _ = one
    again = run_command("run", str(path / "config.yaml"), "--name", "again")
    assert again.code == 0, again.err
    assert_same_run("one", "again")
    other = run_command("run", str(path / "config.yaml"), "--seed", "1", "--name", "seed-1")
    assert other.code == 0, other.err
    assert timeless("one") != timeless("seed-1")


def test_ctrl_c_saves_and_resuming_gives_the_undisturbed_run(one):
    command = [Path(sys.executable).parent / "plaudit", *RUN, *REWARD, "--name", "stopped"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        for line in job.stdout:
            if line.startswith("ppo: begins"):
                job.send_signal(signal.SIGINT)
                break
        rest, err = job.stdout.read(), job.stderr.read()
    assert job.returncode == 130, err
    assert "press Ctrl-C again to quit at once" in rest
    assert re.fullmatch(
        r"plaudit: ppo stopped at step [123]\. Saved\. "
        r"Continue with: plaudit run --resume runs/stopped\n",
        err,
    )
    done = run_command("run", "--resume", "stopped")
    assert (done.code, done.err) == (0, "")
    assert_same_run("one", "stopped")
