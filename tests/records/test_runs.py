"""Run folders: whole files, one writer, resuming, checkpoints that survive SIGKILL and full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from plaudit.records.config import Config, resolve
from plaudit.records.errors import UserError
from plaudit.records.files import append_jsonl, read_jsonl, write_json, write_text
from plaudit.records.interrupt import Interrupt
from plaudit.records.recipes import load_recipe
from plaudit.records.runs import RunFolder


class WalkConfig(Config):
    length: int = Field(10, description="Steps to walk.")


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "run", WalkConfig(length=3), pipeline="walk") as folder:
        yield folder


def test_a_new_run_holds_its_config_as_a_recipe_and_its_system(run):
    recipe = load_recipe(run.path / "config.yaml")
    assert recipe.pipeline == "walk"
    assert resolve(WalkConfig, recipe) == WalkConfig(length=3)
    system = json.loads((run.path / "system.json").read_text())
    assert system["packages"]["torch"].startswith("2.")
    assert system["cores"] >= 1


def test_names_are_numbered_by_recipe_and_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(2):
        with RunFolder.create(None, WalkConfig(), pipeline="walk", recipe="my/walk.yaml") as new:
            names.append(new.path.name)
    first, second = names
    assert first.startswith("walk-20")
    assert first.endswith("-1")
    assert second == first[:-1] + "2"


def test_a_bare_name_is_under_runs_and_is_opened_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder.create("demo", WalkConfig(), pipeline="walk") as new:
        assert new.path == Path("runs/demo")
    assert RunFolder.open("demo").path == Path("runs/demo")
    with pytest.raises(UserError, match=r"no run at runs/demoo .did you mean 'demo'"):
        RunFolder.open("demoo")


def test_an_existing_run_is_refused_with_what_to_do(run):
    run.close()
    with pytest.raises(
        UserError, match=r"already an unfinished run .* continue it with plaudit run --resume"
    ):
        RunFolder.create(run.path, WalkConfig(), pipeline="walk")
    with RunFolder.resume(run.path) as again:
        again.finish({"score": 1.0})
    with pytest.raises(UserError, match=r"already a finished run .* choose another name"):
        RunFolder.create(run.path, WalkConfig(), pipeline="walk")
    with pytest.raises(UserError, match="is finished"):
        RunFolder.resume(run.path)
    assert RunFolder.open(run.path).results == {"score": 1.0}


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.create(tmp_path, WalkConfig(), pipeline="walk")


def test_two_processes_cannot_write_one_run_and_a_killed_one_does_not_block(run):
    path = run.path
    run.close()
    code = (
        "import sys; from plaudit.records.runs import RunFolder;"
        f"r = RunFolder.resume({str(path)!r}); print('locked', flush=True); sys.stdin.read()"
    )
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"in use by process {other.pid} since"):
            RunFolder.resume(path)
        assert not RunFolder.open(path).finished  # reading needs no lock
        other.send_signal(signal.SIGKILL)
        other.wait()
    with RunFolder.resume(path) as mine:
        mine.append_jsonl("events.jsonl", {"stage": "a", "step": 0})


# --- logs


def test_truncation_drops_later_lines_of_the_stage_and_a_torn_one(run):
    rows = [("sft", 1), ("sft", 9), ("ppo", 1), ("ppo", 2), ("ppo", 3)]
    for stage, step in rows:
        run.append_jsonl("metrics.jsonl", {"stage": stage, "step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "ppo", "st')
    run.truncate_after("ppo", 2)
    left = [(row["stage"], row["step"]) for row in run.read_jsonl("metrics.jsonl")]
    assert left == [("sft", 1), ("sft", 9), ("ppo", 1), ("ppo", 2)]
    assert (run.path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    run.truncate_after("ppo", -1)
    assert [row["stage"] for row in run.read_jsonl("metrics.jsonl")] == ["sft", "sft"]


def test_numbers_that_json_lacks_are_null_in_logs(tmp_path):
    append_jsonl(tmp_path / "m.jsonl", {"loss": float("nan"), "list": [float("inf"), 1.5]})
    assert read_jsonl(tmp_path / "m.jsonl") == [{"loss": None, "list": [None, 1.5]}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"a": 1}\n{oops}\n{"a": 2}\n')
    with pytest.raises(UserError, match=r"m.jsonl, line 2: not valid JSON"):
        read_jsonl(tmp_path / "m.jsonl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(value=json_values)
def test_json_reads_back_equal(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "v.json"
    write_json(path, value)
    assert json.loads(path.read_text()) == value


def test_half_a_surrogate_pair_is_kept_in_json_and_escaped_in_text(tmp_path):
    """UTF-8 has none; names of files that are not UTF-8 and answers of byte-level models do."""
    half = "p\udce9 \ud83d"
    write_json(tmp_path / "v.json", {half: [half, "ä"]})
    assert json.loads((tmp_path / "v.json").read_bytes()) == {half: [half, "ä"]}
    append_jsonl(tmp_path / "m.jsonl", {"text": half})
    assert read_jsonl(tmp_path / "m.jsonl") == [{"text": half}]
    write_text(tmp_path / "t.txt", half)
    assert (tmp_path / "t.txt").read_text("utf-8") == "p\\udce9 \\ud83d"


def test_json_refuses_keys_that_it_would_change(tmp_path):
    with pytest.raises(TypeError, match="key 3"):
        write_json(tmp_path / "v.json", {"a": [{3: "x"}]})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_stage_results_come_back(run):
    assert run.stage_results("sft") is None
    run.finish_stage("sft", {"loss": 0.1 + 0.2})
    assert run.stage_results("sft") == {"loss": 0.1 + 0.2}
    with pytest.raises(ValueError, match="stage"):
        run.finish_stage("../sft", {})


# --- checkpoints


def test_a_checkpoint_comes_back_bit_for_bit(run):
    assert run.load_checkpoint("last") is None
    shared = torch.randn(4, 6)
    arrays = {
        "weight": shared,
        "tied": shared,
        "view": shared.T[1:3],
        "half": torch.randn(3).to(torch.bfloat16),
        "rng": torch.get_rng_state(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    facts = {"lr": 1e-5 / 3, "state": [2**64, -1], "nested": {"words": "ü\n"}}
    run.save_checkpoint("last", "ppo", 12, arrays, facts)
    loaded = run.load_checkpoint("last")
    assert loaded is not None
    stage, step, found, said = loaded
    assert (stage, step, said) == ("ppo", 12, facts)
    assert found.keys() == arrays.keys()
    for name, tensor in arrays.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert run.saved_at() == ("ppo", 12)
    assert run.checkpoint_of("sft") is None
    assert run.checkpoint_of("ppo") is not None


def test_numpy_arrays_come_back_bit_for_bit(run):
    arrays = {
        "a": np.array([[0.1, -np.inf], [np.nan, 5e-324]]),
        "b": np.array([2**64 - 1], np.uint64),
        "c": np.zeros((0, 3), np.int64),
        "d": np.array([True, False]),
        "e": np.arange(6.0).reshape(2, 3).T,
    }
    run.save_checkpoint("last", "learn", 3, arrays, {})
    found = run.checkpoint_of("learn")[1]
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert isinstance(found[name], np.ndarray)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_saving_again_replaces_and_best_is_kept_apart(run):
    for step in (1, 2, 3):
        run.save_checkpoint("last", "ppo", step, {"w": torch.tensor([step])}, {})
    run.save_checkpoint("best", "ppo", 2, {"w": torch.tensor([2])}, {})
    assert run.saved_at("last") == ("ppo", 3)
    assert run.saved_at("best") == ("ppo", 2)
    assert len(list((run.path / "checkpoints").iterdir())) == 4  # two links, two folders


def test_a_damaged_checkpoint_is_refused(run):
    run.save_checkpoint("last", "ppo", 1, {"w": torch.zeros(100)}, {})
    arrays = run.path / "checkpoints" / "last" / "arrays.safetensors"
    data = bytearray(arrays.read_bytes())
    data[-1] ^= 1
    arrays.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: arrays.safetensors"):
        run.load_checkpoint("last")


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(tmp_path):
    script = Path(__file__).parent / "kill_every_operation.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    operations, _, outcomes = done.stdout.partition(" operations, outcomes ")
    assert int(operations) > 10
    assert outcomes == "[1, 2]\n"


FULL = """
import resource, signal, sys
import torch
from plaudit.records.errors import UserError
from plaudit.records.runs import RunFolder
run = RunFolder.resume(sys.argv[1])
run.save_checkpoint("last", "ppo", 1, {"w": torch.ones(10)}, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run.save_checkpoint("last", "ppo", 2, {"w": torch.ones(1_000_000)}, {})
except UserError as error:
    print(error)
print(run.saved_at(), len(list((run.path / "checkpoints").iterdir())))
"""


def test_without_room_the_old_checkpoint_stays_and_a_sentence_says_so(run):
    path = run.path
    run.close()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    sentence, _, rest = done.stdout.partition("\n")
    assert sentence.startswith("no room to write"), done.stderr
    assert sentence.endswith("(File too large); the checkpoint before it is intact")
    assert rest == "('ppo', 1) 2\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_sentence_for_logs_too(run):
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"no room to write .*metrics.jsonl .No space left"):
        run.append_jsonl("metrics.jsonl", {"step": 1})


# --- interruption


def test_the_first_signal_asks_and_the_second_quits(capfd):
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capfd.readouterr().err
