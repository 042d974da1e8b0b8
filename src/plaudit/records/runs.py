"""A run folder: everything that one job was told, did and left, readable without Plaudit.

    config.yaml        the resolved config, itself a recipe
    system.json        versions, cores, memory, devices, command, working folder
    sources.json       digests of the files it was made from
    metrics.jsonl      one line for each step, rollout and evaluation
    samples.jsonl      texts a person can read
    events.jsonl       stages begun, saved, interrupted, finished
    stages/<stage>.json   results of each finished stage
    results.json       results of the finished run
    report/  model/    what people and `transformers` open
    checkpoints/last  checkpoints/best

One process writes a folder at a time: it holds an flock on `.lock`, which the system releases
however the process ends. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from plaudit.records.checkpoints import SavedState, load_state, save_state, saved_at
from plaudit.records.config import Config, dump_yaml
from plaudit.records.errors import UserError, command, nearest
from plaudit.records.files import (
    append_jsonl,
    keep_lines,
    read_json,
    read_jsonl,
    write_json,
    write_text,
)
from plaudit.records.system import now, system_facts
from plaudit.records.visible import steers

RUNS = Path("runs")
"""Where runs are kept, below the folder the command is given in."""

MAX_NAME = 255
"""Bytes that a file's name may have on the usual systems."""

LOGS = ("metrics.jsonl", "samples.jsonl", "events.jsonl")


class RunFolder:
    """One run on disk. `create` and `resume` lock it for writing; `open` only reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._made: list[Path] = []
        """Folders above it that were made for it, the innermost first."""

    @classmethod
    def create(
        cls, target: str | Path | None, config: Config, *, pipeline: str, recipe: str | None = None
    ) -> RunFolder:
        """A new locked folder at a path, under runs/ for a bare name, or with a name of its own.

        Raises UserError where something is already there, saying what can be done.
        """
        path, made = _new_path(target, recipe or pipeline)
        run = cls(path)
        run._made = made
        run.lock()
        write_text(path / "config.yaml", dump_yaml(config, pipeline=pipeline))
        run._furnish()
        return run

    @classmethod
    def open(cls, target: str | Path) -> RunFolder:
        """An existing run, by path or by its name under runs/, for reading."""
        path = run_path(target)
        if not _is_file(path / "config.yaml"):
            raise UserError(f"no run at {path}{_nearest_run(path)}")
        return cls(path)

    @classmethod
    def resume(cls, target: str | Path) -> RunFolder:
        """An existing unfinished run, locked for writing."""
        run = cls.open(target)
        run.lock()
        if run.finished:
            run.close()
            raise UserError(f"the run {run.path} is finished; start another one with another name")
        run._furnish()
        return run

    def _furnish(self) -> None:
        """What every run has beside its config, unless it is there already."""
        for name in ("report", "checkpoints", "model"):
            (self.path / name).mkdir(exist_ok=True)
        if not (self.path / "system.json").exists():
            here = str(Path.cwd()).encode(errors="backslashreplace").decode()
            write_json(self.path / "system.json", {"folder": here, **system_facts()})

    # --- one writer

    def lock(self) -> None:
        """Takes the folder for this process; UserError while another one has it.

        What a killed writer left half-written is removed: nobody else writes while the lock is held.
        """
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"nothing can be written in {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 100, 0).decode(errors="replace").strip()
            os.close(handle)
            raise UserError(
                f"the run {self.path} is in use by {holder or 'another process'};"
                " wait until it ends, or stop it"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} since {now()}\n".encode(), 0)
        self._lock = handle
        for left in sorted(self.path.rglob(".*.tmp")):  # by a writer that was killed
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)

    def holder(self) -> str | None:
        """Which process is writing the folder, as "process 12 since ..."; None when none is."""
        try:
            handle = os.open(self.path / ".lock", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(handle, 100, 0).decode(errors="replace").strip() or "another process"
        finally:
            os.close(handle)
        return None

    def state(self) -> str:
        """In words: finished, under way (and where), or unfinished (and where it was saved)."""
        if self.finished:
            return "finished"
        saved = self.saved_at()
        where = f", saved in {saved[0]} at step {saved[1]}" if saved else ""
        holder = self.holder()
        return (f"under way by {holder}" if holder else "unfinished") + where

    def began_in(self) -> Path:
        """Where the relative paths of its config start: the folder that the run began in.

        The working folder where that one is gone, as when a project was moved, or not known.
        """
        path = self.path / "system.json"
        folder = read_json(path).get("folder") if path.exists() else None
        return Path(folder) if folder is not None and Path(folder).is_dir() else Path.cwd()

    def close(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- files

    def write_json(self, name: str, value: Any) -> None:
        """Replaces a JSON file of the folder in one step."""
        self._require_lock()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)

    def append_jsonl(self, name: str, row: Mapping[str, Any]) -> None:
        """Adds one flushed line to a log of the folder."""
        self._require_lock()
        append_jsonl(self.path / name, row)

    def read_jsonl(self, name: str) -> list[dict[str, Any]]:
        """Whole lines of a log; works while the run is being written."""
        return read_jsonl(self.path / name)

    def truncate_after(self, stage: str, step: int) -> None:
        """Drops log lines of `stage` later than `step` (-1: all of them), and torn last lines.

        What a resumed loop will say again is thereby said once. It relies on an algorithm yielding
        `Checkpoint` as the last event of its step.
        """
        self._require_lock()
        for name in LOGS:
            if (self.path / name).exists():
                rows = self.read_jsonl(name)
                late = [row.get("stage") == stage and row.get("step", -1) > step for row in rows]
                keep_lines(self.path / name, [not dropped for dropped in late])

    # --- checkpoints

    def save_checkpoint(
        self, kind: str, stage: str, step: int, arrays: dict[str, Any], facts: dict[str, Any]
    ) -> None:
        """Replaces checkpoints/`kind` ("last" or "best"); a kill leaves the old or the new one."""
        self._require_lock()
        save_state(self.path / "checkpoints" / kind, SavedState(stage, step, arrays, facts))

    def load_checkpoint(
        self, kind: str = "last"
    ) -> tuple[str, int, dict[str, Any], dict[str, Any]] | None:
        """(stage, step, arrays, facts) of a checkpoint, its checksums verified; None without one."""
        state = load_state(self.path / "checkpoints" / kind)
        return None if state is None else (state.stage, state.step, state.arrays, state.facts)

    def checkpoint_of(self, stage: str) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """(step, arrays, facts) where checkpoints/last belongs to `stage`: where to go on from."""
        if saved_at(self.path / "checkpoints" / "last") is None:
            return None
        saved = self.load_checkpoint("last")
        return None if saved is None or saved[0] != stage else saved[1:]

    def saved_at(self, kind: str = "last") -> tuple[str, int] | None:
        """(stage, step) of a checkpoint, without loading it."""
        return saved_at(self.path / "checkpoints" / kind)

    # --- results

    def finish_stage(self, stage: str, results: Mapping[str, Any]) -> None:
        """Marks a stage as done: a resumed run takes its results and does not repeat it."""
        self.write_json(f"stages/{_file_name(stage)}.json", dict(results))

    def stage_results(self, stage: str) -> dict[str, Any] | None:
        """What `finish_stage` was given, or None while the stage is not done."""
        return self._read_mapping(f"stages/{_file_name(stage)}.json")

    def finish(self, results: Mapping[str, Any]) -> None:
        """Marks the whole run as done."""
        self.write_json("results.json", dict(results))

    @property
    def results(self) -> dict[str, Any] | None:
        """What `finish` was given, or None while the run is not done."""
        return self._read_mapping("results.json")

    @property
    def finished(self) -> bool:
        """True once the whole run is done."""
        return (self.path / "results.json").exists()

    @property
    def anything_done(self) -> bool:
        """True once a stage has begun or ended: from then on the folder is worth keeping."""
        return (self.path / "events.jsonl").exists() or (self.path / "stages").exists()

    def discard_if_nothing_done(self) -> None:
        """Removes a folder that holds no more than what `create` put there, and those above it
        that were made for it and are empty."""
        if not self.anything_done:
            shutil.rmtree(self.path)
            for folder in self._made:
                with contextlib.suppress(OSError):  # somebody else has come to use it
                    folder.rmdir()

    def _read_mapping(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.exists():
            return None
        value: dict[str, Any] = read_json(path)
        return value

    def _require_lock(self) -> None:
        assert self._lock is not None, "a run is written only by the process that holds its lock"


def run_path(target: str | Path) -> Path:
    """The folder of a run: a path as it is, a bare name under runs/ or else in this folder."""
    path = Path(target)
    if target == "":
        raise UserError("no run is named: give its name under runs/, or its folder")
    if not _is_bare(path, str(target)):
        return path
    here = _is_file(path / "config.yaml") and not (RUNS / path).is_dir()
    return path if here else RUNS / path


def named_path(name: str) -> Path:
    """The folder runs/NAME of a new run or sweep; UserError for what is not a name of one folder."""
    hint = f"; a folder elsewhere is given by --out {shlex.quote(name)}"
    if not name.strip():
        raise UserError("--name is empty: give a word or two, as in --name demo")
    if (character := steers(name)) is not None:
        raise UserError(f"--name {name!r} holds {character}, which cannot be seen: leave it out")
    if "/" in name:
        raise UserError(f"--name {name!r} is a path, but a run is kept in runs/NAME{hint}")
    if name[0] in ".-~":
        raise UserError(f"--name {name!r} begins with {name[0]!r}, which a name must not{hint}")
    if name != name.strip() or name.endswith("."):
        raise UserError(f"--name {name!r} begins or ends with a space, or ends with a full stop")
    if len(os.fsencode(name)) > MAX_NAME:
        raise UserError(
            f"--name has {len(os.fsencode(name))} bytes, but a folder's name has {MAX_NAME} at most"
        )
    return RUNS / name


def _is_file(path: Path) -> bool:
    """False also where the system takes no such path: too long, or with a zero byte."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_bare(path: Path, text: str) -> bool:
    return not path.is_absolute() and len(path.parts) == 1 and not text.startswith(".")


def run_names() -> list[str]:
    """Names of the runs under runs/, the latest last."""
    found = [path.parent for path in RUNS.glob("*/config.yaml")]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def planned_path(target: str | Path | None, recipe: str) -> Path:
    """Where `RunFolder.create` would put a run now; UserError where something is already there."""
    if target is None:
        return next(path for path in _numbered(recipe) if not path.exists())
    path = Path(target)
    if target == "":
        raise UserError("no folder is named for the run: give a name, or a path")
    if isinstance(target, str) and _is_bare(path, target):
        path = named_path(target)
    with _saying_why_not(path):
        try:
            os.fsencode(path).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(
                f"the folder {path} has a name that is not UTF-8: give another"
            ) from None
        if (path / "config.yaml").exists():
            state = "a finished" if RunFolder(path).finished else "an unfinished"
            resume = command("run", "--resume", path)
            go_on = "" if state == "a finished" else f" continue it with {resume}, or"
            raise UserError(f"there is already {state} run at {path};{go_on} choose another name")
        if path.exists() and (not path.is_dir() or any(map(_holds_things, path.iterdir()))):
            raise UserError(f"{path} exists and is not a run folder; choose another name")
        above = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


def _new_path(target: str | Path | None, recipe: str) -> tuple[Path, list[Path]]:
    """Makes the folder of a new run; returns it, and the folders above it that had to be made."""
    path = planned_path(target, recipe)
    made = [above for above in path.parents if not above.exists()]
    if target is not None:
        with _saying_why_not(path):
            path.mkdir(parents=True, exist_ok=True)
        return path, made
    with _saying_why_not(RUNS):
        RUNS.mkdir(parents=True, exist_ok=True)
    for path in _numbered(recipe):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path, made
    raise AssertionError("numbers do not end")


@contextlib.contextmanager
def _saying_why_not(path: Path) -> Iterator[None]:
    """Turns what the system says of a folder that cannot be made into a sentence."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the folder {path} cannot be made: {reason}") from error


def _holds_things(path: Path) -> bool:
    """False for what a run leaves that was killed before it had written its config."""
    return path.name != ".lock" and not (path.name.startswith(".") and path.suffix == ".tmp")


def _numbered(recipe: str) -> Iterator[Path]:
    """Names that a run gets where none was chosen, in their order."""
    stem = re.sub(r"[^\w.-]+", "-", Path(recipe).stem).strip("-.") or "run"
    day = datetime.now().strftime("%Y%m%d")
    return (RUNS / f"{stem}-{day}-{number}" for number in itertools.count(1))


def _nearest_run(path: Path) -> str:
    if path.parent != RUNS:
        return ""
    names = run_names()
    if not names:
        return "; runs/ holds none yet"
    return nearest(path.name, names) or f"; the latest is {names[-1]!r}"


def _file_name(stage: str) -> str:
    if not re.fullmatch(r"[\w.-]+", stage) or stage.startswith("."):
        raise ValueError(f"a stage is named by letters, digits, '-', '_' and '.', not {stage!r}")
    return stage
