"""The end of every language-model job: the model, its best state, results and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from plaudit.engine.local import LocalActor
from plaudit.pipelines.stages import StageResult, Stages
from plaudit.records.errors import UserError
from plaudit.records.runs import RunFolder
from plaudit.records.state import Saved, part_of


def weights(role: str, arrays: Mapping[str, Tensor]) -> Saved:
    """What a finished stage kept of a role, for it to begin anew with."""
    if not any(name.startswith(f"{role}/weight.") for name in arrays):
        raise UserError(
            f"what the run kept has no weights of the {role}: it was begun by another version of "
            "Plaudit, so finish it with that one, or start it anew",
            new_run=True,
        )
    return part_of((dict(arrays), {role: {"version": 0}}), role)


def save_policy(stages: Stages, stage: str, actor: LocalActor, done: StageResult) -> None:
    """Write the policy as it is now under model/, and the state that was judged best under best/
    where that is another; adapters beside the first where there are any."""
    run = stages.run
    found = run.load_checkpoint("best") if run.saved_at("best") else None
    ends = [
        r["step"]
        for r in run.read_jsonl("events.jsonl")
        if r.get("event") == "done" and r.get("stage") == stage
    ]
    if found is not None and found[0] == stage and found[1] not in ends:
        actor.restore(weights("actor", found[2]))
        actor.save(run.path / "best")
    actor.restore(weights("actor", done.arrays))
    actor.save(run.path / "model")
    if actor.trained.rank:
        actor.save_adapter(run.path / "adapter")


def times(run: RunFolder) -> dict[str, Any]:
    """Seconds and processor seconds of all stages, and of each."""
    names = dict.fromkeys(str(row["stage"]) for row in run.read_jsonl("events.jsonl"))
    done = {name: run.stage_results(name) or {} for name in names}
    found: dict[str, Any] = {}
    for kind in ("seconds", "cpu_seconds"):
        each = {name: told.get(kind, 0.0) for name, told in done.items()}
        found |= {kind: sum(each.values()), f"stage_{kind}": each}
    return found


def before_and_after(run: RunFolder, stage: str) -> dict[str, float]:
    """The held-out figures of the stage's first look and of its last: name_before, name_after."""
    looks = [
        row
        for row in run.read_jsonl("metrics.jsonl")
        if row.get("stage") == stage and row.get("event") == "evaluation"
    ]
    if not looks:
        return {}
    ends: Sequence[tuple[str, Mapping[str, Any]]] = (("before", looks[0]), ("after", looks[-1]))
    return {
        f"{name.removeprefix('eval/')}_{side}": value
        for side, row in ends
        for name, value in row.items()
        if name.startswith("eval/")
    }


def conclude(run: RunFolder, stage: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write the page and results.json; the summary."""
    from plaudit.pipelines.pages.lm_report import lm_report  # matplotlib takes its time

    summary = {**figures, **before_and_after(run, stage), **times(run)}
    lm_report(run, stage, summary)
    run.finish(json.loads(json.dumps(summary)))
    return summary
