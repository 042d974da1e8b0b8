"""Runs as the pages read them: logs followed byte for byte, states, samples, and what may be started."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plaudit.feedback.store import FeedbackStore
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.files import keep_lines
from plaudit.records.runs import RunFolder
from plaudit.studio import launching
from plaudit.studio.following import Log, Place, news
from plaudit.studio.launching import Launcher
from plaudit.studio.run_views import RunViews, process_of, state_of


class Keys(Config):
    """None."""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    return Path("runs")


def made(name, pipeline="ppo", rows=(), samples=()):
    """A stopped run with these logs."""
    with RunFolder.create(f"runs/{name}", Keys(), pipeline=pipeline) as run:
        for row in rows:
            run.append_jsonl("metrics.jsonl", row)
        for row in samples:
            run.append_jsonl("samples.jsonl", row)
    return run


def step(k, **numbers):
    return {"stage": "ppo", "step": k, "event": "step", "time": "t", "seconds": 1.0, **numbers}


# --- a log that is followed


def test_every_row_is_told_once_in_any_number_of_looks(tmp_path):
    path, place, told = tmp_path / "log", Place(), []
    assert news(path, place).rows == []
    for k in range(20):
        with path.open("a") as file:
            file.write(json.dumps({"k": k}) + "\n" + '{"torn": ')
        found = news(path, place)
        told += found.rows
        place = Place.of(str(found.place))
        assert not found.anew
        assert news(path, place).rows == []
        with path.open("rb+") as file:  # the writer ends its line
            file.truncate(place.offset)
    assert told == [{"k": k} for k in range(20)]


def test_a_log_that_was_rewritten_is_told_anew(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"k": 1}\n{"k": 2}\n{"k": 3}\n')
    log = Log(path)
    assert log.look() == [{"k": 1}, {"k": 2}, {"k": 3}]
    place = log.place
    keep_lines(path, [True, False, False])  # as a resumed run does
    with path.open("a") as file:
        file.write('{"k": 20}\n{"k": 30}\n')
    found = news(path, place)
    assert found.anew
    assert found.rows == [{"k": 1}, {"k": 20}, {"k": 30}]
    assert log.look() == found.rows


@pytest.mark.parametrize(
    "said", ["", "x", "1", "1-", "-1", "1-2-3", "²-1", "9" * 50 + "-1", "1--1"]
)
def test_a_place_that_is_none_is_the_beginning(tmp_path, said):
    path = tmp_path / "log"
    path.write_text('{"k": 1}\n')
    assert news(path, Place.of(said)).rows == [{"k": 1}]


def test_a_place_inside_a_line_is_no_place(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"k": 1}\nnot json\n[3]\n{"k": 2}\n')
    place = news(path, Place()).place
    found = news(path, Place(place.file, place.offset - 3))
    assert found.anew
    assert found.rows == [{"k": 1}, {"k": 2}]


# --- the list and one run


def test_the_list_says_where_every_run_is(runs):
    made("old", "rlhf", [step(3)])
    done = made("done", "reward")
    with done:
        done.lock()
        done.finish({"loss": 1.0})
    waits = made("waits", "rlhf", [step(4, **{"feedback/votes": 4.0, "feedback/wanted": 20.0})])
    with waits:
        waits.lock()
        found = {row["name"]: row for row in RunViews(runs).briefs()}
        assert process_of(waits) is not None
    assert {name: row["state"] for name, row in found.items()} == {
        "old": "stopped", "done": "finished", "waits": "waiting"
    }  # fmt: skip
    assert found["waits"]["waiting"] == {"votes": 4, "wanted": 20}
    assert (found["old"]["job"], found["old"]["stage"], found["old"]["step"]) == ("rlhf", "ppo", 3)
    assert state_of(waits) == "stopped"
    assert process_of(waits) is None


def test_a_run_whole_has_curves_alarms_and_what_they_mean(runs):
    rows = [step(k, **{"objective/kl": 1.0 + k, "objective/scores": 0.1 * k}) for k in (1, 2, 3)]
    run = made("one", rows=rows)
    whole = RunViews(runs).whole(run)
    assert whole["curves"]["ppo"]["objective/kl"] == [(1, 2.0), (2, 3.0), (3, 4.0)]
    assert [alarm["kind"] for alarm in whole["alarms"]] == ["kl_at_start"]
    assert [point["step"] for point in whole["over"]] == [1, 2, 3]
    assert whole["meanings"]["objective/kl"]["sentence"].startswith("How far the policy")
    assert whole["config"] == (run.path / "config.yaml").read_text()
    assert json.loads(json.dumps(whole))["results"] is None
    assert news(run.path / "metrics.jsonl", Place.of(whole["place"])).rows == []


def test_samples_come_in_pages_and_the_last_ones_first_asked_for(runs):
    run = made(
        "one", samples=[{"stage": "ab"[k % 2], "step": k, "text": str(k)} for k in range(30)]
    )
    views = RunViews(runs)
    last = views.samples(run, after=None, limit=3, stage=None)
    assert [row["n"] for row in last["samples"]] == [28, 29, 30]
    assert (last["next"], last["total"], last["stages"]) == (None, 30, ["a", "b"])
    after, told = 0, []
    while after is not None:
        page = views.samples(run, after=after, limit=4, stage="b")
        told += [row["step"] for row in page["samples"]]
        after = page["next"]
    assert told == list(range(1, 30, 2))


@pytest.mark.parametrize("name", ["..", ".", "", "other", "../runs/one", "one/", ".studio", "O ne"])
def test_only_names_of_the_folder_are_runs(runs, name):
    made("one")
    with pytest.raises(UserError, match="there is no run"):
        RunViews(runs).named(name)


# --- what may be started


@pytest.fixture
def spawned(monkeypatch):
    """What would be started, and a process that sleeps in its place."""
    words_of, processes = [], []

    def process(words, said):
        words_of.append(words)
        said.write(b"plaudit: the model is not there\n")
        said.flush()
        code = "import time; time.sleep(60)"
        processes.append(subprocess.Popen([sys.executable, "-c", code], stdout=said))
        return processes[-1]

    monkeypatch.setattr(launching, "_process", process)
    yield words_of
    for process in processes:
        process.kill()
        process.wait()


def test_what_is_shown_is_what_is_started(runs, spawned):
    launcher = Launcher(runs)
    plan = launcher.plan("ppo", {"model": "tiny model", "ppo.lr": 1e-4, "seed": 3})
    assert spawned == []
    launcher.start(plan)
    words = ["run", "ppo", "--name", "ppo-1", "--model=tiny model", "--ppo.lr=0.0001", "--seed=3"]
    assert spawned == [words]
    assert plan.command == "plaudit " + shlex.join(words)
    assert (plan.notes, plan.before) == ([], None)
    elsewhere = Launcher(Path("elsewhere")).plan("dpo", {})
    assert elsewhere.command == "plaudit run dpo --out elsewhere/dpo-1"


@pytest.mark.parametrize(
    ("job", "keys", "said"),
    [
        ("control/ppo", {}, "a page starts no 'control/ppo'"),
        ("os:system", {}, "a page starts no"),
        ("rlhf", {"reward": "os:system"}, "code to run"),
        ("ppo", {"reward": "judge.py:score"}, "code to run"),
        ("ppo", {"reward": "runs/none/reward_model"}, "code to run"),
        ("ppo", {"pipeline": "os:system"}, "not set from a page"),
        ("rlhf", {"template": "turns.jinja"}, "not set from a page"),
        ("rlhf", {"feedback.store": "/etc/x"}, "not set from a page"),
        ("rlhf", {"feedback.file": "x"}, "not set from a page"),
        ("rlhf", {"out": "x"}, "not set from a page"),
        ("rlhf", {"--model x": 1}, "is not the name of a key"),
        ("rlhf", {"model\n": 1}, "is not the name of a key"),
        ("rlhf", {"model": "/etc"}, "must lie below"),
        ("rlhf", {"model": "../x"}, "must lie below"),
        ("rlhf", {"prompts": "~/x"}, "must lie below"),
        ("rlhf", {"demonstrations": "a/../../x"}, "must lie below"),
        ("rlhf", {"seed": [1]}, "neither a number nor a text"),
    ],
)
def test_code_and_files_elsewhere_are_refused(runs, spawned, job, keys, said):
    with pytest.raises(UserError, match=said):
        Launcher(runs).plan(job, keys)
    assert spawned == []


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "~", "x\u202ey"])
def test_names_of_runs_are_those_of_the_command_line(runs, spawned, name):
    with pytest.raises(UserError, match="--name"):
        Launcher(runs).plan("ppo", {}, name=name)


def test_votes_become_a_file_of_comparisons(runs, spawned):
    with FeedbackStore("store.sqlite") as store:
        store.add_items([])
        with pytest.raises(UserError, match="no vote here prefers one answer yet"):
            Launcher(runs).plan("reward", {}, votes=store)
        for k in range(3):
            store.add_item(f"i{k}", "Why?", [f"good {k}", f"bad {k}"])
            store.add_comparison(f"i{k}", "Ada", "tie" if k == 2 else "a")
        plan = Launcher(runs).plan("reward", {"model": "m"}, votes=store)
        assert not Path("runs/.studio").exists()
        Launcher(runs).start(plan)
        with pytest.raises(UserError, match="learns from a reward, not votes"):
            Launcher(runs).plan("ppo", {}, votes=store)
    assert plan.before == (
        "plaudit feedback export --store store.sqlite runs/.studio/reward-1.votes.jsonl"
    )
    assert plan.command == (
        "plaudit run reward --name reward-1 --data=runs/.studio/reward-1.votes.jsonl --model=m"
    )
    rows = [json.loads(x) for x in Path("runs/.studio/reward-1.votes.jsonl").read_text().splitlines()]  # fmt: skip
    assert [(r["chosen"], r["rejected"]) for r in rows] == [
        ("good 0", "bad 0"),
        ("good 1", "bad 1"),
    ]
    assert plan.notes[0] == "2 comparisons"
    assert any("tie" in note for note in plan.notes[1:])
    assert RunViews(runs).names() == []


def test_two_at_a_time_no_name_twice_and_a_stop_reaches_the_process(runs, spawned):
    launcher = Launcher(runs)
    launcher.start(launcher.plan("ppo", {}, name="one"))
    one = launcher.started()[0]
    with pytest.raises(UserError, match="there is a run 'one' already"):
        launcher.plan("ppo", {}, name="one")
    launcher.start(launcher.plan("ppo", {}))
    with pytest.raises(UserError, match="one and ppo-1 are at work"):
        launcher.start(launcher.plan("ppo", {}))
    launcher.stop(None, "one")
    assert one.process.wait(30) == -signal.SIGTERM
    with pytest.raises(UserError, match="nobody works on 'one'"):
        launcher.stop(None, "one")
    assert one.failed is None
    two = launcher.started()[1].process
    two.kill()
    two.wait()
    assert launcher.started()[1].failed == "the model is not there"
    launcher.start(launcher.plan("ppo", {}, name="two"))


def test_whoever_works_on_a_run_is_asked_to_stop(runs):
    code = (
        "import sys, time; from pathlib import Path; from plaudit.records.runs import RunFolder;"
        "run = RunFolder(Path('runs/one')); run.lock(); print('ready', flush=True); time.sleep(60)"
    )
    run = made("one")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process_of(run) == process.pid
        Launcher(runs).stop(run, "one")
        assert process.wait(30) == -signal.SIGTERM
    deadline = time.monotonic() + 10
    while process_of(run) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError, match="nobody works"):
        Launcher(runs).stop(run, "one")
