"""A terminal that is closed, or a lost connection: what was done is saved, as after Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.cli.main import main
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

JOB = Path(__file__).parent.parent / "cli" / "walk_job.py"
COMMAND = [sys.executable, "-m", "plaudit.cli.main"]

ON_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from plaudit.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command in a session of its own, whose terminal is the one it reads from."""


@pytest.fixture(autouse=True)
def _hangups_are_heard():
    """Also where the tests themselves run below nohup, which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("walk.yaml").write_text(f"pipeline: {json.dumps(f'{JOB}:run')}\nnum_steps: 1000000\n")
    return ["run", "walk.yaml", "--name", "lost"]


def assert_saved_and_goes_on():
    run = RunFolder.open("lost")
    assert run.read_jsonl("events.jsonl")[-1]["event"] == "interrupted"
    where = run.saved_at()
    assert where is not None
    rows = [row["step"] for row in run.read_jsonl("metrics.jsonl")]
    assert rows == list(range(1, where[1] + 1))
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("1000000", str(where[1] + 3)))
    assert main(["run", "--resume", "lost"]) == 0
    whole = ["run", "walk.yaml", "--name", "whole", "--num-steps", str(where[1] + 3)]
    assert main(whole) == 0
    assert RunFolder.open("lost").results == RunFolder.open("whole").results


def test_a_closed_terminal_saves(words):
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *words],
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    said = b""
    while b"/1000000" not in said:
        said += os.read(here, 1000)
    os.close(here)  # the kernel sends SIGHUP, and whatever is written from now on fails
    assert process.wait() == 130
    assert_saved_and_goes_on()


def test_sighup_saves_and_tells_how_to_go_on(words):
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *words], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith("walk: begins") for line in process.stdout)
        process.send_signal(signal.SIGHUP)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "Saved. Continue with: plaudit run --resume runs/lost" in said
    assert_saved_and_goes_on()


def test_where_sighup_was_ignored_it_stays_so():
    """As below nohup, which is meant to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_may_hang_up_twice(capfd):
    with Interrupt() as interrupt:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err.count("Ctrl-C again") == 1
