"""What a user can get wrong in the whole job: exit code 2, one sentence, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest
from safetensors.torch import load_file

from plaudit.pipelines.pages.report import write_report
from plaudit.records.errors import UserError
from plaudit.records.runs import RunFolder
from tiny_job import FLAGS, REWARD, run_command, tiny_job, write_rows
from tiny_models import tiny_llama

ROWS = [{"prompt": f"Write about cart number {i}."} for i in range(12)]
AGAIN = "plaudit: once that is mended: plaudit run --resume runs/wrong\n"
ANEW = "plaudit: what was done is in runs/wrong\n"  # its keys are at fault, and are fixed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_job(tmp_path_factory.mktemp("errors"))


@pytest.fixture
def folder(made, monkeypatch):
    """The job's files as the working folder, without runs."""
    monkeypatch.chdir(made)
    shutil.rmtree("runs", ignore_errors=True)
    return made


def run(*words, name="wrong"):
    return run_command("run", "rlhf", *FLAGS, *words, "--name", name)


def refused(*words):
    """The one sentence with which a job is refused before it has begun; it leaves nothing."""
    said = run(*words)
    assert said.code == 2, said.err
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("plaudit: ")
    assert "Traceback" not in said.out
    assert not Path("runs", "wrong").exists()
    return said.err.removeprefix("plaudit: ").rstrip("\n")


def stopped(*words, then=AGAIN):
    """The one sentence with which a job stops after it has begun, and what `then` can be done."""
    said = run(*words)
    assert said.code == 2, said.err
    assert said.err.endswith(f"\n{then}"), said.err
    sentence = said.err.removesuffix(then).removeprefix("plaudit: ")
    assert sentence.count("\n") == 1, said.err
    assert nothing_half_written("wrong")
    return sentence.rstrip("\n")


def nothing_half_written(name):
    path = Path("runs", name)
    assert not (path / "results.json").exists()
    for file in path.rglob("*.json"):
        json.loads(file.read_text())
    for file in path.rglob("*.safetensors"):
        load_file(file)
    return not list(path.rglob("*.tmp"))


# --- files


def test_a_prompts_file_that_is_missing_names_the_nearest(folder):
    said = refused(*REWARD, "--prompts", "prompt.jsonl")
    assert "prompt.jsonl" in said
    assert "did you mean 'prompts.jsonl'" in said


def test_a_wrong_column_says_how_to_rename_it(folder):
    write_rows(folder / "asked.jsonl", [{"promt": row["prompt"]} for row in ROWS])
    said = refused(*REWARD, "--prompts", "asked.jsonl")
    assert said == (
        "asked.jsonl, line 1: no column 'prompt' (did you mean 'promt'?); "
        "rename with --columns prompt=promt"
    )


def test_a_rename_that_no_file_needs_is_refused(folder):
    said = refused(*REWARD, "--demonstrations", "wanted.jsonl", "--columns", "completion=promt")
    assert said == (
        "--columns completion=promt: there is no column 'promt' in prompts.jsonl or wanted.jsonl "
        "(did you mean 'prompt'?)"
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("  ", "'prompt' is empty"),
        (None, "'prompt' is null, expected a value"),
        (7, "'prompt' is 7 .int., expected a text or a list of messages"),
        ("river " * 400, r"the prompt has [\d,]+ tokens, which with 8 new ones exceeds .* 256"),
        ([{"role": "assistant", "content": "Hi"}], "the prompt ends with a turn of the assistant"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named_by_its_line(folder, value, problem):
    rows = [*ROWS[:6], {"prompt": value}, *ROWS[7:]]
    write_rows(folder / "odd.jsonl", rows)
    said = refused(*REWARD, "--prompts", "odd.jsonl")
    assert re.match(f"odd.jsonl, line 7: {problem}", said), said


def test_a_column_that_only_some_rows_have_stops_only_a_reward_that_takes_it(folder):
    rows = [row | {"topic": "tea"} for row in ROWS]
    del rows[4]["topic"]
    write_rows(folder / "ragged.jsonl", rows)
    said = refused("--reward", "reward.py:on_topic", "--prompts", "ragged.jsonl")
    assert said == (
        "reward.py:on_topic takes the column 'topic', but ragged.jsonl, line 5 has no 'topic'; "
        "give it in every row (null will do)"
    )
    kept = run(*REWARD, "--prompts", "ragged.jsonl", "--num-held-out", "12")
    assert "column 'topic' is left out: ragged.jsonl, line 5 has no 'topic'" in kept.out
    assert "12 prompts, of which num_held_out=12" in kept.err


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("river " * 400, r"the prompt has [\d,]+ tokens, which with [\d,]+ new ones exceeds"),
        (
            "Stop.<|im_end|>",
            r"the completion 'Stop.<\|im_end\|>' holds <\|im_end\|>, which would end it early",
        ),
        ([{"role": "user", "content": "Hi"}], "'completion' is one turn of 'user', expected"),
    ],
)
def test_a_demonstration_that_cannot_be_used_is_named_by_its_line(folder, completion, problem):
    write_rows(
        folder / "odd.jsonl",
        [ROWS[0] | {"completion": "A cart."}, ROWS[1] | {"completion": completion}],
    )
    said = refused(*REWARD, "--demonstrations", "odd.jsonl")
    assert re.match(f"odd.jsonl, line 2: {problem}", said), said


def test_too_few_prompts_for_those_held_out(folder):
    said = refused(*REWARD, "--num-held-out", "12")
    assert said == (
        "prompts.jsonl has 12 prompts, of which num_held_out=12 would be held out: "
        "give more prompts or a smaller num_held_out"
    )


def test_a_feedback_file_is_checked_before_anything_is_drawn(folder):
    words = ("--feedback.source", "file", "--feedback.file")
    assert "did you mean 'pairs.jsonl'" in refused(*words, "pair.jsonl")
    write_rows(folder / "said.jsonl", [{"prompt": "Hi", "chosen": "a", "rejectd": "b"}])
    said = refused(*words, "said.jsonl")
    assert said == (
        "said.jsonl, line 1: no column 'rejected' (did you mean 'rejectd'?); "
        "rename with --columns rejected=rejectd"
    )
    assert "feedback.file names none" in refused(*words[:2])


# --- the model


def test_a_model_that_cannot_be_used_is_a_sentence(folder):
    assert "there is no model 'modle'" in refused(*REWARD, "--model", "modle")
    bare = folder / "bare"
    shutil.copytree("model", bare, dirs_exist_ok=True)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    said = refused(*REWARD, "--model", "bare")
    assert said == "bare has no tokenizer that can be read (tokenizer.json is needed)"


def test_a_model_without_chat_template_says_what_to_give(folder):
    tiny_llama(folder / "base", family="no_template")
    said = refused(*REWARD, "--model", "base")
    assert "template" in said
    assert "none" in said
    assert "chatml" in said


def test_more_layers_than_the_model_has(folder):
    said = refused(*REWARD, "--num-top-layers", "9")
    assert said == ("num_top_layers is 9, but this model has 4 layers: give a number from 1 to 4")


# --- keys


def test_an_unknown_key_names_the_nearest_as_flag_and_in_a_recipe(folder):
    said = run(*REWARD, "--ppo.num-stpes", "3")
    assert said.code == 2
    assert "--ppo.num_steps" in said.err.replace("-steps", "_steps")
    assert not Path("runs").exists()
    Path("mine.yaml").write_text("pipeline: rlhf\nmodel: model\nppo:\n  num_stpes: 3\n")
    said = run_command("run", "mine.yaml", "--name", "wrong")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "plaudit: unknown key 'num_stpes' in ppo (file mine.yaml, line 4); "
        "did you mean 'num_steps'?\n"
    )
    assert not Path("runs").exists()


def test_answers_that_cannot_differ_are_refused(folder):
    assert "sampling.temperature=0" in refused(*REWARD, "--sampling.temperature", "0")
    assert "sampling.top_k=1" in refused(*REWARD, "--sampling.top-k", "1")
    assert "sampling.min_p=1" in refused(*REWARD, "--sampling.min-p", "1")
    said = stopped(*REWARD, "--sampling.temperature", "0.001", then=ANEW)
    assert said.startswith("all answers to each prompt are equal")


def test_a_store_that_cannot_be_opened_is_refused(folder):
    said = refused(*REWARD, "--feedback.store", "nowhere/feedback.sqlite")
    assert "the folder nowhere does not exist" in said


def test_votes_on_the_answers_of_another_run_are_never_taken_for_its_own(folder):
    Path("shared.sqlite").unlink(missing_ok=True)
    words = (*REWARD, "--feedback.store", "shared.sqlite")
    assert run(*words, name="first").code == 0
    Path("other.jsonl").write_text(Path("prompts.jsonl").read_text().replace("cart", "tea"))
    other = (*words, "--prompts", "other.jsonl")
    assert "is already there with other content" in stopped(*other)
    with sqlite3.connect("shared.sqlite") as database:  # as if no pair had the name of another
        for table in ("items", "votes"):
            database.execute(f"UPDATE {table} SET key = 'first-' || key")
    database.close()
    shutil.rmtree("runs/wrong")
    assert "compares answers that this run did not draw (item 'first-" in stopped(*other)


def test_a_learning_rate_that_overflows_is_a_sentence(folder):
    said = stopped(*REWARD, "--ppo.lr", "1e9", then=ANEW)
    assert said == (
        "ppo: the gradient's norm is nan, so no step was taken: "
        "lower the learning rate in a new run"
    )


# --- rewards

WRONG = """\
import math, sys


def short(prompts, completions):
    return [1.0]


def not_a_number(prompts, completions):
    return [math.nan for _ in completions]


def none(prompts, completions):
    return None


def words(prompts, completions):
    return ["good" for _ in completions]


def raises(prompts, completions):
    known = {}
    return [known[text] for text in completions]


def lazy(prompts, completions):
    for text in completions:
        yield 1 / 0


def misses(prompts, completions, answer):
    return [1.0 for _ in answer]


def leaves(prompts, completions):
    sys.exit("no key")


constant = 3
"""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("short", r"returned 1 values for \d+ completions: it must return one for each"),
        ("not_a_number", r"returned nan for completion 0 \(.*\): it must return a finite number"),
        ("none", r"returned NoneType None, not a list of \d+ numbers"),
        ("words", r"returned 'good' for completion 0 \(.*\): it must return a finite number"),
        ("raises", r"raised KeyError: .* \(\S+wrong.py, line 22, in \S+\)"),
        ("lazy", r"raised ZeroDivisionError: .* \(\S+wrong.py, line 27, in lazy\)"),
        (
            "leaves",
            r"raised SystemExit: it called sys.exit\('no key'\) \(\S+wrong.py, line 35, in \w+\)",
        ),
    ],
)
def test_a_reward_that_cannot_be_used_is_named(folder, function, problem):
    Path("wrong.py").write_text(WRONG)
    said = stopped("--reward", f"wrong.py:{function}")
    assert re.fullmatch(rf"wrong.py:{function} {problem}", said, re.DOTALL), said


def test_a_reward_whose_arguments_no_column_fills_is_refused_before_anything_is_drawn(folder):
    Path("wrong.py").write_text(WRONG)
    assert refused("--reward", "wrong.py:misses") == (
        "wrong.py:misses wants 'answer', which no column of prompts.jsonl provides: "
        "there is none besides the prompt"
    )
    write_rows(folder / "near.jsonl", [row | {"anwser": "x"} for row in ROWS])
    said = refused("--reward", "wrong.py:misses", "--prompts", "near.jsonl")
    assert said == (
        "wrong.py:misses wants 'answer', which no column of near.jsonl provides "
        "(did you mean 'anwser'?); rename with --columns answer=anwser"
    )


@pytest.mark.parametrize("column", ["completions", "prompts"])
def test_a_column_that_is_called_as_an_argument_is_refused_until_it_is_renamed(folder, column):
    rows = [row | {column: ["one", "two"]} for row in ROWS]
    write_rows(folder / "ultra.jsonl", rows)
    words = (*REWARD, "--prompts", "ultra.jsonl")
    said = refused(*words)
    assert said.startswith(f"ultra.jsonl has a column {column!r}, and reward.py:vowels is given")
    assert said.endswith(f"rename the column with --columns other={column}")
    assert run(*words, "--columns", f"other={column}").code == 0


def test_a_mended_reward_finishes_the_job(folder):
    Path("wrong.py").write_text(WRONG)
    stopped("--reward", "wrong.py:raises")
    Path("wrong.py").write_text(Path("reward.py").read_text().replace("def vowels", "def raises"))
    said = run_command("run", "--resume", "wrong")
    assert (said.code, said.err) == (0, "")
    assert RunFolder.open("wrong").finished


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        ("wrong.py:rasies", "wrong.py has no function 'rasies' (did you mean 'raises'?)"),
        ("wrong.py:constant", "'constant' in wrong.py is a int, not a function"),
        ("wrnog.py:short", "reward file wrnog.py does not exist (did you mean 'wrong.py'?)"),
        ("wrong.py", "reward 'wrong.py' does not name a function"),
        ("no_such_module:f", "reward module 'no_such_module' could not be imported"),
        ("broken.py:f", "reward file broken.py could not be read: NameError: name 'mth'"),
    ],
)
def test_a_reward_that_cannot_be_found_is_refused(folder, reward, problem):
    Path("wrong.py").write_text(WRONG)
    Path("broken.py").write_text("import math\n\nHALF = mth.pi / 2\n")
    said = refused("--reward", reward)
    assert said.startswith(problem), said
    if reward.startswith("broken"):
        assert said.endswith("(line 3)")


# --- the disk, and the end


@contextlib.contextmanager
def no_file_over(size):
    """Writing more than `size` bytes to a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


STAGES = ("answers_train", "answers_held_out", "feedback", "reward_model", "ppo", "answers_after")


def as_if_killed_before(stage):
    """runs/full as runs/whole was when `stage` was about to begin ("": the conclusion)."""
    shutil.copytree("runs/whole", "runs/full", symlinks=True)
    full = Path("runs/full")
    (full / "results.json").unlink()
    (full / "answers.json").unlink()
    for folder in ("model", "reward_model", "report", "checkpoints"):
        shutil.rmtree(full / folder)
    for late in STAGES[STAGES.index(stage) :] if stage else ():
        for file in (full / "stages").glob(f"{late}.*"):
            file.unlink()
    if stage in STAGES[1:3]:  # before the answers an empty store would be larger than they are
        for file in full.glob("feedback.sqlite*"):
            file.unlink()


@pytest.fixture(scope="module")
def whole(made):
    """A finished run, and the size of each of its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert run(*REWARD, name="kept").code == 0
        (made / "runs" / "kept").rename(made / "kept")
    return made / "kept"


@pytest.mark.parametrize(
    ("stage", "too_large", "problem"),
    [
        (
            "answers_train",
            "stages/answers_train.safetensors",
            "no room to write .*checkpoints/last",
        ),
        ("feedback", "feedback.sqlite", "feedback.sqlite: (disk I/O error|no room)"),
        ("reward_model", "stages/reward_model.safetensors", "no room to write .*checkpoints/last"),
        ("ppo", "stages/ppo.safetensors", "no room to write .*checkpoints/last"),
        ("", "model/model.safetensors", "no room to write runs/full/model"),
    ],
)
def test_without_room_the_job_stops_with_a_sentence_and_goes_on_once_there_is(
    folder, whole, stage, too_large, problem
):
    shutil.copytree(whole, "runs/whole", symlinks=True)
    as_if_killed_before(stage)
    with no_file_over((whole / too_large).stat().st_size - 1):
        said = run_command("run", "--resume", "full")
    assert said.code == 2, said.err
    assert re.match(f"plaudit: .*{problem}", said.err), said.err
    assert said.err.endswith(AGAIN.replace("wrong", "full"))
    assert nothing_half_written("full")
    done = run_command("run", "--resume", "full")
    assert (done.code, done.err) == (0, "")
    for kind in ("model", "reward_model"):
        a, b = (load_file(Path("runs", n, kind, "model.safetensors")) for n in ("whole", "full"))
        assert a.keys() == b.keys()
        assert all(a[name].equal(b[name]) for name in a)


def test_without_room_for_its_figures_the_report_is_a_sentence_and_stays_whole(folder, whole):
    answers = json.loads((whole / "answers.json").read_text())["answers"]
    summary = json.loads((whole / "report" / "summary.json").read_text())
    before = {file: file.read_bytes() for file in (whole / "report").iterdir()}
    with no_file_over(20_000), pytest.raises(UserError, match=r"no room to write .*\.png"):
        write_report(whole, summary, answers)
    assert {file: file.read_bytes() for file in (whole / "report").iterdir()} == before


def test_a_finished_run_is_not_resumed(folder):
    assert run(*REWARD, name="done").code == 0
    before = sorted(Path("runs/done").rglob("*"))
    said = run_command("run", "--resume", "done")
    assert said.code == 2
    assert said.err == (
        "plaudit: the run runs/done is finished; start another one with another name\n"
    )
    assert sorted(Path("runs/done").rglob("*")) == before
