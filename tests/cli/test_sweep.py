"""`plaudit sweep` as a user runs it: seeds in processes, what fails, Ctrl-C, and going on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plaudit.cli.sweep import seeds_of
from plaudit.records.errors import UserError
from plaudit.records.recipes import load_recipe
from plaudit.records.runs import RunFolder

JOB = '''\
"""A job of some milliseconds: at step s of seed k it is judged as 10 k + s.

While there is a file called hold it waits after five steps.
"""

import time
from pathlib import Path

from pydantic import Field

from plaudit.pipelines.drive import drive
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Evaluation, Step


class ClimbConfig(Config):
    """Climbs."""

    steps: int = Field(4, description="How many steps.")
    pause: float = Field(0.0, description="Seconds a step takes.")
    heeds: bool = Field(True, description="Leave off holding when a stop is asked for.")
    fails: int = Field(-1, description="The seed that fails.")
    seed: int = Field(0, description="Where it begins.")


def climb(config, saved, interrupt):
    step, kept = (0, 0) if saved is None else (saved[0], saved[2]["kept"])
    while step < config.steps:
        if config.seed == config.fails and step == 2:
            raise ZeroDivisionError("fell over")
        time.sleep(config.pause)
        while step >= 6 and Path("hold").exists() and not (config.heeds and interrupt.requested):
            time.sleep(0.01)
        step, kept = step + 1, kept + 10 * config.seed + step
        yield Step(step, config.steps, {"loss": float(-step), "kept": float(kept)})
        yield Evaluation(step, {"eval/return": 10.0 * config.seed + step})
        yield Checkpoint(step, lambda: ({}, {"kept": kept}), due=False)
    yield Done(step)


def run(config: ClimbConfig, folder, *, progress, interrupt) -> dict:
    if config.steps < 1:
        raise UserError("steps = 0: climb at least one")
    saved = folder.checkpoint_of("climb")
    start = None if saved is None else saved[0]
    events = climb(config, saved, interrupt)
    drive(events, folder, "climb", progress=progress, interrupt=interrupt, start=start)
    return {"sitting": 1 if saved is None else 2}


class FixedConfig(Config):
    """Has no seed."""


def fixed(config: FixedConfig, folder, *, progress, interrupt) -> dict:
    return {}
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with climb.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("climb.py").write_text(JOB)
    Path("climb.yaml").write_text('pipeline: "climb.py:run"\n')
    Path("fixed.yaml").write_text('pipeline: "climb.py:fixed"\n')
    return tmp_path


def outcome(name="climb-sweep"):
    return json.loads(Path("runs", name, "sweep.json").read_text())


def returns(path):
    rows = RunFolder.open(path).read_jsonl("metrics.jsonl")
    return [(row["step"], row["eval/return"]) for row in rows if "eval/return" in row]


def test_seeds_are_written_as_ranges_and_lists():
    assert seeds_of("0..9") == list(range(10))
    assert seeds_of("3") == [3]
    assert seeds_of("0,1, 5 .. 7") == [0, 1, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "write 0..9"),
        ("0-9", "write 0..9"),
        ("a", "write 0..9"),
        ("9..0", "9..0 runs backwards"),
        ("0..3,2", "the seed 2 stands twice"),
    ],
)
def test_seeds_that_cannot_be_are_told(text, sentence):
    with pytest.raises(UserError, match=sentence):
        seeds_of(text)


def test_a_sweep_runs_its_seeds_and_tells_of_all(work, plaudit):
    """Finals 4, 14, 24, 34: the interquartile mean is (14 + 24) / 2; 14 is never reached by seed 0,
    at step 4 by seed 1, at once by the others: median (1 + 4) / 2."""
    words = ["climb.yaml", "--seeds", "0..3", "--jobs", "2", "--reach", "14", "--pause", "1e-3"]
    code, out, err = plaudit("sweep", *words)
    assert (code, err) == (0, "")
    facts = outcome()
    assert facts["metric"] == "eval/return"
    assert [one["final"] for one in facts["seeds"]] == [4, 14, 24, 34]
    assert [one["reached"] for one in facts["seeds"]] == [None, 4, 1, 1]
    assert facts["aggregate"]["interquartile mean"]["value"] == 19
    assert facts["aggregate"]["mean"]["num"] == 4
    assert facts["reach"] == {"threshold": 14, "num_seeds": 3, "median_steps": 2.5}
    assert "| 1 | 14 | 14 | 4 |" in out
    assert "3 of 4 seeds reached 14, median 2 steps." in out
    folder = Path("runs/climb-sweep")
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "| 1 | 14 | 14 | 4 |" in (folder / "sweep.md").read_text()
    # every seed is an ordinary run, with its own seed and the sweep's keys
    for seed in range(4):
        text = (folder / f"seed-{seed}" / "config.yaml").read_text()
        assert f"seed: {seed}\n" in text
        assert "pause: 0.001\n" in text
    assert plaudit("show", folder / "seed-2")[0] == 0

    # again: nothing runs; with one seed more, only that
    before = (folder / "seed-0" / "metrics.jsonl").stat().st_mtime_ns
    words[2] = "0..4"
    code, out, _ = plaudit("sweep", *words)
    assert code == 0
    assert "seed 4: begins" in out
    assert "seed 0: begins" not in out
    assert (folder / "seed-0" / "metrics.jsonl").stat().st_mtime_ns == before
    assert outcome()["num_seeds"] == 5

    # other keys are another sweep; another metric is not
    code, _, err = plaudit("sweep", "climb.yaml", "--seeds", "0..4", "--pause", "2e-3")
    assert code == 2
    assert "holds a sweep with pause = 0.001, not 0.002; choose another --name" in err
    code, out, _ = plaudit("sweep", *words, "--metric", "loss", "--reach", "-3")
    assert code == 0
    assert outcome()["seeds"][0]["best"] == -4  # a loss is better when it is less
    assert outcome()["seeds"][0]["reached"] == 3
    code, _, err = plaudit("sweep", *words, "--metric", "eval/retrun")
    assert code == 2
    assert "no metric 'eval/retrun' in all seeds (did you mean 'eval/return'?)" in err


def test_show_tells_a_sweeps_table_and_what_is_not_in_it(work, plaudit):
    words = ["climb.yaml", "--seeds", "0..1", "--fails", "2"]
    _, out, _ = plaudit("sweep", *words)
    table = out[out.index("# climb.py:run") : out.index("Kept in")]
    assert "| interquartile mean | 9 | 4 to 14 |" in table
    for target in ("climb-sweep", "runs/climb-sweep"):
        code, shown, err = plaudit("show", target)
        assert (code, err) == (0, "")
        head = "runs/climb-sweep: a sweep, 2 of the 2 seeds begun are finished\n\n"
        assert shown.startswith(head + table)
        assert "One seed: plaudit show runs/climb-sweep/seed-0" in shown
        assert "Curves: runs/climb-sweep/sweep.png" in shown
        assert "command again" not in shown

    # a seed more that is stopped, and a table that is lost
    folder = Path("runs/climb-sweep")
    words[2] = "0..2"
    assert plaudit("sweep", *words)[0] == 1
    code, shown, _ = plaudit("show", "climb-sweep")
    assert code == 0
    assert "2 of the 3 seeds begun" in shown
    assert "| 2 | failed: ZeroDivisionError: fell over |" in shown
    assert "seed 2: unfinished\n" in shown
    assert "seed 1:" not in shown
    assert "the same 'plaudit sweep' command again" in shown
    (folder / "sweep.json").write_text('{"torn')
    code, _, err = plaudit("show", "climb-sweep")
    assert code == 2
    assert "sweep.json is not valid JSON" in err
    (folder / "sweep.json").unlink()
    with RunFolder.resume(folder / "seed-2"):
        code, shown, _ = plaudit("show", "climb-sweep")
    assert code == 0
    assert "|" not in shown
    assert "seed 1: finished" in shown
    assert "seed 2: under way by process" in shown
    assert "The table of all comes when they are done" in shown


def test_a_seed_that_fails_stops_no_other_and_can_be_run_again(work, plaudit):
    words = ["climb.yaml", "--seeds", "0..2", "--fails", "1", "--name", "some"]
    code, out, _ = plaudit("sweep", *words)
    assert code == 1
    assert "seed 1: failed: ZeroDivisionError: fell over" in out
    assert "runs/some/seed-1.log" in out
    assert [one["seed"] for one in outcome("some")["seeds"]] == [0, 2]
    assert outcome("some")["failed"] == {"1": "ZeroDivisionError: fell over"}
    assert "| 1 | failed: ZeroDivisionError: fell over |" in Path("runs/some/sweep.md").read_text()
    Path("climb.py").write_text(JOB.replace("step == 2", "step == 99"))
    code, out, _ = plaudit("sweep", *words)
    assert code == 0
    assert "seed 0: begins" not in out
    assert [one["final"] for one in outcome("some")["seeds"]] == [4, 14, 24]


def test_a_sweep_that_goes_on_tells_no_remaining_time_at_first(work, plaudit, monkeypatch):
    """Of 20 steps done before this sitting and no start-up yet it would tell a rate of nothing."""
    monkeypatch.setattr("plaudit.cli.progress.EVERY", 0.0)
    monkeypatch.setattr("plaudit.pipelines.sweep.SHOW", 0.0)
    words = ["climb.yaml", "--steps", "20", "--seeds"]
    plaudit("sweep", *words, "0")
    _, out, _ = plaudit("sweep", *words, "0..1")
    first = next(line for line in out.splitlines() if "/40" in line)
    assert int(first.removeprefix("sweep: ").partition("/")[0]) > 20
    assert "left" not in first
    assert "eval/return" in first


def test_when_every_seed_fails_the_first_sentence_is_told(work, plaudit):
    code, _, err = plaudit("sweep", "climb.yaml", "--seeds", "0..1", "--steps", "0")
    assert code == 2
    assert err == "plaudit: every seed failed, the first with: steps = 0: climb at least one\n"


def start(*words):
    command = [sys.executable, "-m", "plaudit.cli.main", "sweep", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    """As long as it takes, unless the process ends before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def under_way(folder, seed, rows):
    path = Path(folder, f"seed-{seed}", "metrics.jsonl")
    return path.exists() and path.read_bytes().count(b"\n") >= rows


def test_ctrl_c_saves_all_and_the_same_command_goes_on(work, plaudit):
    words = ["climb.yaml", "--seeds", "0..2", "--jobs", "2", "--steps", "60"]
    Path("hold").touch()
    process = start(*words)
    wait_for(lambda: all(under_way("runs/climb-sweep", seed, 6) for seed in (0, 1)), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    Path("hold").unlink()
    assert process.returncode == 130
    assert f"Continue with: plaudit sweep {' '.join(words)}" in err
    assert "0 of 3 seeds are finished, all saved" in err
    assert "seed 0: saved" in out
    saved = {seed: RunFolder.open(f"runs/climb-sweep/seed-{seed}").saved_at() for seed in (0, 1)}
    assert all(where is not None and 0 < where[1] < 60 for where in saved.values())
    assert not Path("runs/climb-sweep/seed-2").exists()

    code, _, _ = plaudit("sweep", *words)
    assert code == 0
    for seed in range(3):
        run = RunFolder.open(f"runs/climb-sweep/seed-{seed}")
        assert returns(run.path) == [(s, 10.0 * seed + s) for s in range(1, 61)]
        assert run.results == {"sitting": 1 if seed == 2 else 2}


def test_a_second_ctrl_c_leaves_no_process_behind(work):
    Path("hold").touch()
    process = start("climb.yaml", "--seeds", "0", "--steps", "60", "--no-heeds")
    wait_for(lambda: under_way("runs/climb-sweep", 0, 6), process)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any("press Ctrl-C again" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "quit. Continue from what was saved with: plaudit sweep" in err
    assert RunFolder(Path("runs/climb-sweep/seed-0")).holder() is None


def test_a_seed_that_another_process_still_runs_is_waited_for(work, plaudit):
    """A sweep that was killed leaves its seeds running; the next one must not start them again."""
    words = ["climb.yaml", "--seeds", "0", "--steps", "60"]
    Path("hold").touch()
    process = start(*words)
    wait_for(lambda: under_way("runs/climb-sweep", 0, 6), process)
    process.kill()
    process.communicate()
    again = start(*words)
    assert again.stdout is not None
    waits = next(line for line in again.stdout if line.startswith("seed 0"))
    assert waits.startswith("seed 0: under way by process")
    Path("hold").unlink()
    out, err = again.communicate()
    assert (again.returncode, err) == (0, "")
    assert "begins, in" not in out
    assert RunFolder.open("runs/climb-sweep/seed-0").results == {"sitting": 1}


def test_a_control_sweep_takes_the_recipe_tuned_for_its_environment(work, plaudit):
    code, _, err = plaudit("sweep", "control/ppo", "--seeds", "3", "--steps", "600")
    assert (code, err) == (0, "")
    held = load_recipe("runs/ppo-CartPole-v1-sweep/sweep.yaml")
    tuned = load_recipe("control/ppo/CartPole-v1")
    assert held.values == held.values | tuned.values | {"steps": 600}
    facts = outcome("ppo-CartPole-v1-sweep")
    results = RunFolder.open("runs/ppo-CartPole-v1-sweep/seed-3").results
    assert results is not None
    assert facts["seeds"][0]["final"] == results["eval/return"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0..9"], "name a recipe before --seeds"),
        (["climb.yaml"], "say which seeds: --seeds 0..9"),
        (["climb.yaml", "--seeds"], "--seeds needs a value"),
        (["climb.yaml", "--seeds", "0", "--seed", "3"], "a sweep takes no --seed; give --seeds"),
        (["climb.yaml", "--seeds", "0", "--resume", "x"], "a sweep takes no --resume"),
        (["climb.yaml", "--seeds", "0", "--jobs", "0"], "--jobs 0: write a whole number"),
        (["climb.yaml", "--seeds", "0", "--reach", "much"], "--reach much: write a number"),
        (["fixed.yaml", "--seeds", "0"], "has no key 'seed'"),
        (["climb.yaml", "--seeds=0", "--name", "a", "--out", "b"], "give one of them"),
        (["climb.yaml", "--seeds", "0", "--out", "."], "exists and is not a sweep"),
        (["climbb.yaml", "--seeds", "0"], "no recipe"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(work, plaudit, words, sentence):
    code, _, err = plaudit("sweep", *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_an_unknown_key_is_told_before_anything_runs(work, plaudit):
    code, _, err = plaudit("sweep", "climb.yaml", "--seeds", "0", "--pauze", "1")
    assert code == 2
    assert err.startswith("plaudit: unknown key --pauze (did you mean --pause?)")
    assert not Path("runs").exists()
