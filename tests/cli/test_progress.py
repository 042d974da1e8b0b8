"""Progress on a terminal and in a log shows step, rate, remaining time, numbers and a sample."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from plaudit.cli import progress as progress_module
from plaudit.cli.progress import (
    BarProgress,
    PlainProgress,
    Stage,
    clock,
    progress_for,
    sample_line,
)
from plaudit.records.events import Done, Evaluation, Rollout, Step


def tell(progress):
    progress.begin("ppo", ["objective/kl", "eval/accuracy"])
    for step in range(1, 4):
        progress.show(Rollout(step, [{"completion": "so\n good", "score": 0.5}], {}))
        progress.show(Step(step, 10, {"lr": 0.1, "objective/kl": step / 4, "x": 1.0}))
    progress.show(Evaluation(3, {"eval/accuracy": 0.625}))
    progress.note("a note [bold]as it is[/bold]")
    progress.show(Done(3))
    progress.end()


def test_a_log_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(progress_module, "EVERY", 0.0)
    stream = io.StringIO()
    tell(progress_for(stream))
    text = stream.getvalue()
    assert isinstance(progress_for(stream), PlainProgress)
    assert "\x1b" not in text
    assert "ppo: 3/10" in text
    assert "left  objective/kl 0.75" in text
    assert "so good | score 0.5" in text
    assert text.count("ppo: 3/10") == 1


def test_a_quiet_log_still_gets_the_last_step(monkeypatch):
    monkeypatch.setattr(progress_module, "EVERY", math.inf)
    stream = io.StringIO()
    tell(progress_for(stream))
    lines = stream.getvalue().splitlines()
    assert [line.partition("  ")[0] for line in lines if line.startswith("ppo")] == [
        "ppo: begins",
        "ppo: 3/10",
    ]
    assert lines[2].endswith("objective/kl 0.75  eval/accuracy 0.625")


def test_a_terminal_gets_a_bar():
    stream = io.StringIO()
    tell(BarProgress(Console(file=stream, force_terminal=True, width=100)))
    text = stream.getvalue()
    assert "3/10" in text
    assert "eval/accuracy 0.625" in text
    assert "so good | score 0.5" in text
    assert "[bold]as it is[/bold]" in text


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([(10, 1), (15, 1)], ["10.0 s/step, 0:40 left", "15.0 s/step, 1:00 left"]),
        ([(10, 1), (20, 2)], ["10.0 s/step, 0:40 left", "10.0 s/step, 0:30 left"]),
        # told of now and then, and after a start of some seconds: only what was watched counts
        ([(4, 2), (5, 3), (8, 4)], ["", "", "2.0 s/step, 0:02 left"]),
        ([(4, 2), (9, 2), (12, 4)], ["", "", "4.0 s/step, 0:04 left"]),
        # going on, with a first event that tells where from
        ([(0, 3), (6, 3), (6, 4)], ["", "", "6.0 s/step, 0:06 left"]),
    ],
)
def test_what_remains_is_told_once_it_can_be_known(monkeypatch, steps, words):
    """(seconds since the stage began, step) of 5, and what is said of each then."""
    times = SimpleNamespace(now=0)
    times.monotonic = lambda: times.now
    monkeypatch.setattr(progress_module, "time", times)
    stage, found = Stage("sweep", []), []
    for times.now, step in steps:
        stage.take(Step(step, 5, {}))
        found.append(stage.timing())
    assert found == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0:00"), (5, "0:05"), (750, "12:30"), (7500, "2:05:00")]
)
def test_clock(seconds, words):
    assert clock(seconds) == words


def test_a_sample_is_one_line():
    line = sample_line({"prompt": "a\nb", "completion": "word " * 100, "kl": 0.123456, "n": [1]})
    assert "\n" not in line
    assert line.startswith("a b | word word")
    assert line.endswith("… | kl 0.123")
    assert len(line) < 200
