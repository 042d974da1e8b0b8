"""What a killed writer left half-written is gone once the run is taken up again."""

from __future__ import annotations

from pydantic import Field

from plaudit.records.config import Config
from plaudit.records.runs import RunFolder


class WalkConfig(Config):
    length: int = Field(10, description="Steps to walk.")


def test_taking_a_run_up_removes_half_written_files_and_folders_and_nothing_else(tmp_path):
    path = tmp_path / "run"
    with RunFolder.create(path, WalkConfig(), pipeline="walk") as run:
        run.append_jsonl("events.jsonl", {"stage": "walk"})
    before = {file.relative_to(path) for file in path.rglob("*")}
    (path / ".model.abc.tmp").mkdir()
    (path / ".model.abc.tmp" / "model.safetensors").write_bytes(b"half")
    (path / "report" / ".index.html.tmp").write_bytes(b"half")
    with RunFolder.resume(path):
        assert {file.relative_to(path) for file in path.rglob("*")} == before


def test_a_run_killed_before_its_system_was_noted_has_it_noted_later(tmp_path):
    path = tmp_path / "run"
    with RunFolder.create(path, WalkConfig(), pipeline="walk"):
        pass
    noted = (path / "system.json").read_text()
    with RunFolder.resume(path):
        assert (path / "system.json").read_text() == noted
    (path / "system.json").unlink()
    (path / "model").rmdir()
    with RunFolder.resume(path):
        assert (path / "system.json").exists()
        assert (path / "model").is_dir()


def test_a_run_killed_before_it_had_a_config_can_be_started_again(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").write_text("process 1\n")
    (path / ".config.yaml.abc.tmp").write_text("pipel")
    with RunFolder.create(path, WalkConfig(), pipeline="walk"):
        assert not (path / ".config.yaml.abc.tmp").exists()
