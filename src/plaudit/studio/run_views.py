"""Runs as the pages show them: a list, one run whole, and its samples. Nothing here writes to a run."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_json
from plaudit.studio.following import Log, Row

if TYPE_CHECKING:
    from plaudit.records.runs import RunFolder

MOST_LOGS = 32
"""Logs that are kept read, of the runs looked at last."""

MOST_SAMPLES = 100

_PIPELINE = re.compile(r"^pipeline:\s*(\S+)", re.MULTILINE)


class RunViews:
    """The runs of one folder; may be asked from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._logs: OrderedDict[Path, Log] = OrderedDict()
        self._lock = threading.Lock()

    def named(self, name: str) -> RunFolder:
        """The run of that name, or UserError."""
        names = self.names()
        if name not in names:
            raise UserError(f"there is no run {name!r}{nearest(name, names)}")
        return _folder(self.folder / name)

    def names(self) -> list[str]:
        """Every run of the folder, the latest first."""
        found = [path.parent for path in self.folder.glob("*/config.yaml")]
        return [p.name for p in sorted(found, key=_touched, reverse=True)]

    def briefs(self) -> list[dict[str, Any]]:
        """What a row of the list says of every run."""
        return [self.brief(_folder(self.folder / name)) for name in self.names()]

    def brief(self, run: RunFolder) -> dict[str, Any]:
        """Name, job, state and where it is."""
        metrics = self.rows(run, "metrics.jsonl")
        last = metrics[-1] if metrics else {}
        state = state_of(run)
        waiting = None
        if state == "running" and "feedback/wanted" in last:
            waiting = {"votes": int(last["feedback/votes"]), "wanted": int(last["feedback/wanted"])}
            if (run.path / "stages" / "feedback.json").exists():
                waiting = None
        return {
            "name": run.path.name,
            "job": _pipeline(run),
            "state": "waiting" if waiting else state,
            "waiting": waiting,
            "stage": last.get("stage"),
            "step": last.get("step"),
            "touched": _touched(run.path),
        }

    def whole(self, run: RunFolder) -> dict[str, Any]:
        """Everything but the samples."""
        from plaudit.pipelines.curves import curves, overoptimisation
        from plaudit.pipelines.glossary import meaning

        with self._lock:
            log = self._log(run, "metrics.jsonl")
            rows, place = list(log.look()), log.place
        drawn = curves(rows)
        names = {name for of_stage in drawn.values() for name in of_stage}
        known = {name: found[1] for name in names if (found := meaning(name)) is not None}
        return {
            **self.brief(run),
            **self.signs(run, rows),
            "curves": drawn,
            "over": overoptimisation(rows),
            "place": str(place),
            "meanings": {
                name: {"sentence": m.sentence, "healthy": m.healthy, "direction": m.direction}
                for name, m in known.items()
            },
            "config": (run.path / "config.yaml").read_text(errors="replace"),
            "results": _json_of(run.path / "results.json"),
            "command": _command(run),
            "stages": self._stages(run),
        }

    def signs(self, run: RunFolder, rows: list[Row] | None = None) -> dict[str, Any]:
        """The alarms that hold now."""
        from plaudit.pipelines.alarms import alarms

        found = alarms(self.rows(run, "metrics.jsonl") if rows is None else rows)
        return {"alarms": [asdict(alarm) for alarm in found]}

    def samples(
        self,
        run: RunFolder,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int,
        stage: str | None = None,
    ) -> dict[str, Any]:
        """A page of the samples, numbered as they stand in the log: the first ones after a number, or
        the last ones (`before` a number)."""
        limit = min(limit, MOST_SAMPLES)
        numbered = [
            {"n": n, **row}
            for n, row in enumerate(self.rows(run, "samples.jsonl"), start=1)
            if stage is None or row.get("stage") == stage
        ]
        if after is not None:
            page = [row for row in numbered if row["n"] > after][:limit]
        else:
            page = [row for row in numbered if before is None or row["n"] < before][-limit:]
        more = bool(page) and page[-1]["n"] < numbered[-1]["n"]
        stages = dict.fromkeys(str(r.get("stage")) for r in self.rows(run, "samples.jsonl"))
        return {
            "samples": page,
            "next": page[-1]["n"] if more else None,
            "first": numbered[0]["n"] if numbered else None,
            "total": len(numbered),
            "stages": list(stages),
        }

    def rows(self, run: RunFolder, name: str) -> list[Row]:
        """All rows of a log of a run."""
        with self._lock:
            return list(self._log(run, name).look())

    def _log(self, run: RunFolder, name: str) -> Log:
        path = run.path / name
        log = self._logs.pop(path, None) or Log(path)
        self._logs[path] = log
        if len(self._logs) > MOST_LOGS:
            self._logs.popitem(last=False)
        return log

    def _stages(self, run: RunFolder) -> list[dict[str, Any]]:
        """Stages in the order they began, with what they took."""
        events = self.rows(run, "events.jsonl")
        names = dict.fromkeys(str(row["stage"]) for row in events if "stage" in row)
        done = {name: _json_of(run.path / "stages" / f"{name}.json") for name in names}
        return [
            {"name": name, "done": told is not None, "seconds": (told or {}).get("seconds")}
            for name, told in done.items()
        ]


def _folder(path: Path) -> RunFolder:
    from plaudit.records.runs import RunFolder  # with numpy, which a page of votes needs not

    return RunFolder(path)


def state_of(run: RunFolder) -> str:
    """finished, running (somebody holds its lock), or stopped."""
    if run.finished:
        return "finished"
    return "running" if run.holder() else "stopped"


def process_of(run: RunFolder) -> int | None:
    """The process that works in the run, by what it wrote into the lock that it holds."""
    told = re.match(r"process (\d+) since ", run.holder() or "")
    return int(told[1]) if told else None


def _pipeline(run: RunFolder) -> str:
    try:
        found = _PIPELINE.search((run.path / "config.yaml").read_text(errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def _command(run: RunFolder) -> str | None:
    from plaudit.records.errors import command

    words = (_json_of(run.path / "system.json") or {}).get("command")
    return command(*words[1:]) if isinstance(words, list) and words[1:] else None


def _json_of(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, UserError):
        return None


def _touched(path: Path) -> float:
    """When it last said something."""
    for name in ("results.json", "metrics.jsonl", "config.yaml"):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0
