"""The report of a run: one page that needs no network, its figures as PNG, and summary.json.

The page is `report/index.html`: style and figures are inside it, so it can be mailed or archived.
What to say is in report_contents.py, what to draw in report_plots.py, the layout in
recipes/report.html.j2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from plaudit import __version__
from plaudit.pipelines.pages import report_contents as contents
from plaudit.pipelines.pages.page_text import apart, seen
from plaudit.pipelines.pages.report_plots import Plot, judged_by, plots
from plaudit.records.errors import command
from plaudit.records.files import (
    read_json,
    read_jsonl,
    saying_no_room,
    sync_folder,
    write_json,
    write_text,
)

TEMPLATE = Path(__file__).parents[2] / "recipes" / "report.html.j2"

SUMMARY_KEYS = (
    "seconds",
    "reward_model_accuracy",
    "length_only_accuracy",
    "win_rate",
    "win_rate_interval",
    "gold_before",
    "gold_after",
    "kl",
    "length_before",
    "length_after",
    "distinct_before",
    "distinct_after",
)
"""Keys that summary.json always has; null where the run did not measure one."""

CONFIG_ROWS = (
    ("model", "Starting model"),
    ("prompts", "Prompts"),
    ("num_held_out", "Held-out prompts"),
    ("reward", "Reward function"),
    ("demonstrations", "Demonstrations"),
    ("feedback.source", "Source of feedback"),
    ("feedback.answers_per_prompt", "Answers to each prompt"),
    ("feedback.pairs_per_prompt", "Pairs compared per prompt"),
    ("feedback.votes_per_pair", "Votes on each pair"),
    ("num_top_layers", "Layers trained, from the top"),
    ("sampling.max_new_tokens", "Tokens in an answer, at most"),
    ("sampling.temperature", "Sampling temperature"),
    ("{improve}.num_steps", "{IMPROVE} steps"),
    ("{improve}.prompts_per_step", "Prompts in a step"),
    ("{improve}.answers_per_prompt", "Answers to a prompt in a step"),
    ("{improve}.kl_coef", "First KL coefficient"),
    ("{improve}.kl_target", "KL target, nats per answer"),
    ("seed", "Seed"),
)
"""Choices shown on the page, where the run's config has them; the whole config follows. `improve` is
the run's own."""

AGREEMENT_NAMES = {
    "percent": "Pairs of votes that agree",
    "cohen": "Cohen's κ, mean over pairs of raters",
    "fleiss": "Fleiss' κ",
    "krippendorff": "Krippendorff's α",
    "score_krippendorff": "Krippendorff's α of scores",
}


def write_report(
    run_path: Path,
    summary: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]] | None = None,
    *,
    improve: str | None = None,
) -> Path:
    """Writes report/index.html, report/*.png and report/summary.json; returns the page's path.

    `answers` are rows {prompt, before, after, gold_before, gold_after, reward_before,
    reward_after} of held-out prompts (a score not measured is None); `curves` are rows of
    metrics.jsonl, read from the run folder by default. `summary` may lack any key of
    `SUMMARY_KEYS` that the run did not measure: it is then written as null, and the page leaves
    it out. What is not finite becomes null, since JSON has no other way to say it. `improve` names
    the stage that moved the policy; none: the config's key says it.
    """
    rows = read_jsonl(run_path / "metrics.jsonl") if curves is None else curves
    facts = _plain({**dict.fromkeys(SUMMARY_KEYS), **summary})
    folder = run_path / "report"
    folder.mkdir(parents=True, exist_ok=True)
    improve = _improve(_config(run_path)[0]) if improve is None else improve
    drawn = plots(rows, facts, answers, improve=improve)
    for plot in drawn:
        _write_bytes(folder / f"{plot.name}.png", plot.png)
    write_json(folder / "summary.json", facts)
    page = folder / "index.html"
    write_text(page, _render(run_path, facts, answers, drawn, improve))
    return page


def _render(
    run_path: Path,
    summary: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]],
    drawn: Sequence[Plot],
    improve: str,
) -> str:
    config, config_text = _config(run_path)
    system = read_json(run_path / "system.json") if (run_path / "system.json").exists() else {}
    changes = contents.prompt_changes(answers)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": contents.number, "signed": contents.signed}
    environment.filters |= {"seen": seen, "apart": apart}
    return environment.get_template(TEMPLATE.name).render(
        version=__version__,
        name=run_path.resolve().name,
        verdict=contents.verdict(summary, len({contents.asked(row) for row in answers})),
        summary=summary,
        interval=contents.interval,
        gold_name=_gold_name(config),
        measures=contents.measures(summary, improve),
        notices=contents.notices(summary, config),
        improve=improve.upper(),
        picks=contents.picks(answers),
        judge=judged_by(answers),
        judged=_judged(judged_by(answers), summary),
        num_answers=len(answers),
        changes=changes,
        plots={plot.name: plot for plot in drawn},
        svg={plot.name: Markup(plot.svg) for plot in drawn},  # ours alone: no text of a user
        feedback=_feedback_rows(summary.get("feedback") or {}),
        config_rows=_config_rows(config, improve),
        config_text=config_text,
        stages=_stage_rows(summary),
        seconds=duration(summary["seconds"]),
        system=_system_rows(system),
        folder=_shown(run_path),
        model_folder=repr(f"{_shown(run_path)}/model"),
        again=command("run", Path(_shown(run_path), "config.yaml")),
        has_model=(run_path / "model" / "config.json").exists(),
        has_reward_model=(run_path / "reward_model" / "config.json").exists(),
    )


def _judged(judge: str | None, summary: Mapping[str, Any]) -> str:
    """Whose score it is: of the gold judge, of a learned reward model, or of a reward that was given."""
    if judge == "gold":
        return "gold"
    return "reward" if summary.get("reward_is_given") else "reward-model"


def _stage_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each stage's time by the clock, and of the processor where that was kept."""
    cpu = summary.get("stage_cpu_seconds") or {}
    rows = []
    for name, taken in (summary.get("stage_seconds") or {}).items():
        of_processor = f", {duration(cpu[name])} of the processor" if name in cpu else ""
        rows.append((name, duration(taken) + of_processor))
    return rows


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 42 s, 4 min 05 s, 2 h 03 min; "" for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _gold_name(config: Mapping[str, Any]) -> str:
    """Who the gold score comes from, as far as the config says."""
    if config.get("reward"):
        return f"the reward function {config['reward']}"
    feedback = config.get("feedback") or {}
    left_open = feedback.get("source") is None and feedback.get("file") is None
    if config and (left_open or feedback.get("source") == "annotators"):
        return "VADER sentiment, −1 to 1, the rule behind the simulated annotators"
    return "the run's gold judge"


def _config(run_path: Path) -> tuple[dict[str, Any], str]:
    """The run's config, parsed and as it stands in its file; empty where there is none."""
    text = _read_text(run_path / "config.yaml")
    return (yaml.safe_load(text) or {}) if text else {}, text


def _improve(config: Mapping[str, Any]) -> str:
    """How the policy was improved, which is the name of that stage and of its keys."""
    return str(config.get("improve", "ppo"))  # runs before there was a choice took PPO


def _config_rows(config: Mapping[str, Any], improve: str) -> list[tuple[str, str]]:
    """What `CONFIG_ROWS` names; a job of one algorithm has that algorithm's keys at the top."""
    rows = []
    own = {**config, improve: config.get(improve, config)}
    for key, label in CONFIG_ROWS:
        value: Any = own
        for part in key.format(improve=improve).split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            rows.append((label.format(IMPROVE=improve.upper()), str(value)))
    return rows


def _feedback_rows(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Counts and agreement of the feedback store, as `plaudit feedback stats` has them."""
    rows = [
        (label, f"{stats[key]:,}")
        for key, label in (
            ("num_items", "Pairs of answers"),
            ("num_votes", "Votes"),
            ("num_ties", "Ties"),
        )
        if stats.get(key) is not None
    ]
    if stats.get("by_rater"):
        rows.append(("Raters", str(len(stats["by_rater"]))))
    for key, label in AGREEMENT_NAMES.items():
        value = (stats.get("agreement") or {}).get(key)
        if value is not None:
            rows.append((label, contents.number(value, "share" if key == "percent" else "score")))
    side = stats.get("first_shown")
    if side:
        ends = contents.interval((side["low"], side["high"]), "share")
        rows.append(
            ("Answer shown first wins", f"{contents.number(side['share'], 'share')} ({ends})")
        )
    return rows


def _system_rows(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if system.get("cores"):
        memory = f", {system['memory_gib']} GiB" if system.get("memory_gib") else ""
        rows.append(("Machine", f"{system['cores']} cores{memory}"))
    if system.get("devices"):
        rows.append(("Accelerators", ", ".join(system["devices"])))
    packages = system.get("packages") or {}
    names = [f"{n} {packages[n]}" for n in ("plaudit", "torch", "transformers") if packages.get(n)]
    if system.get("python"):
        rows.append(("Versions", ", ".join([f"Python {system['python']}", *names])))
    if system.get("time"):
        rows.append(("Begun", str(system["time"])))
    return rows


def _shown(path: Path) -> str:
    """A path as a person would type it: relative where it is below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _plain(value: Any) -> Any:
    """The value with every number that is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with saying_no_room(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
