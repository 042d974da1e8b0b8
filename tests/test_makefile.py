"""What `make demo` decides to run, and what `make` says where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RECORDER = """#!/bin/sh
echo "$@" >> said
if [ "$2" = rlhf ]; then mkdir -p runs/$4 && touch runs/$4/config.yaml
else touch $3/results.json; fi
"""


@pytest.fixture
def make(tmp_path):
    """A copy of the Makefile beside a .venv that is up to date and whose plaudit only records."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    command = tmp_path / ".venv" / "bin" / "plaudit"
    command.write_text(RECORDER)
    command.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def call(*words):
        return subprocess.run(["make", *words], cwd=tmp_path, capture_output=True, text=True)

    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    return call


def test_the_demo_is_continued_until_it_is_finished_and_then_begun_again(make, tmp_path):
    for _ in range(4):
        assert make("demo").returncode == 0
    assert (tmp_path / "said").read_text().splitlines() == [
        "run rlhf --name demo",
        "run --resume runs/demo",
        "run rlhf --name demo-2",
        "run --resume runs/demo-2",
    ]


def test_an_unknown_benchmark_names_those_there_are(make, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "sampler.py").touch()
    done = make("bench", "NAME=smapler")
    assert done.returncode != 0
    assert "no benchmark 'smapler'; there are: sampler" in done.stderr


def test_without_a_fitting_python_make_says_which_it_needs(make, tmp_path):
    (tmp_path / ".venv" / ".installed").unlink()
    done = make("venv", "PYTHON=")
    assert done.returncode != 0
    assert "Plaudit needs Python 3.11, 3.12 or 3.13" in done.stderr


def test_make_alone_lists_every_target(make):
    phony = (ROOT / "Makefile").read_text().partition(".PHONY: ")[2].partition("\n")[0].split()
    said = make().stdout
    assert len(phony) > 5
    for target in set(phony) - {"help"}:
        assert f"make {target}" in said
