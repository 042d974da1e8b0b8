"""A new folder is there whole or not at all, whatever stops its writer."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from plaudit.records.folders import new_folder


@pytest.mark.parametrize("exchange", [True, False])
def test_a_failure_keeps_the_old_folder(tmp_path, monkeypatch, exchange):
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text("old")
    if not exchange:
        monkeypatch.setattr("ctypes.CDLL", lambda *a, **k: object())

    def half_way():
        with new_folder(place) as made:
            (made / "config.json").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert (place / "config.json").read_text() == "old"
    with new_folder(place) as made:
        (made / "config.json").write_text("new")
    assert (place / "config.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_killed_while_saving_the_old_folder_stays(tmp_path):
    place = tmp_path / "model"
    code = (
        "import sys, pathlib\n"
        "from plaudit.records.folders import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as made:\n"
        "    (made / 'config.json').write_text('new')\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    place.mkdir()
    (place / "config.json").write_text("old")
    command = [sys.executable, "-c", code, str(place)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert (place / "config.json").read_text() == "old"
