"""`plaudit sweep`: a recipe over several seeds, and what came of it with intervals."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from plaudit.cli.words import NAMES, page
from plaudit.records.errors import UserError, command
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from plaudit.pipelines.drive import Progress
    from plaudit.pipelines.sweep import Sweep
    from plaudit.records.config import Config

USAGE = (
    "plaudit sweep RECIPE --seeds 0..9 [--jobs N] [--reach LEVEL] [--metric NAME]"
    " [--name NAME | --out FOLDER] [--KEY VALUE ...]",
)

WORDS = (
    ("RECIPE", "the name of a shipped recipe, or a YAML file"),
    ("--seeds SEEDS", "such as 0..9, or 0,1,5"),
    ("--jobs N", "seeds that run at once, each in a process of its own (default: 1)"),
    ("--reach LEVEL", "tell after how many steps each seed first reached this level"),
    (
        "--metric NAME",
        "what the seeds are judged by (default: eval/return, or what the job has instead)",
    ),
    (
        "--name NAME",
        "keep the sweep in runs/NAME (default: runs/<recipe>-<environment>-sweep); " + NAMES,
    ),
    ("--out FOLDER", "keep the sweep in this folder"),
    ("--KEY VALUE", "any key of the recipe ('plaudit run RECIPE --help' lists them)"),
)

CLOSING = (
    "Every seed is a run of its own in <sweep>/seed-0 and so on; at the end sweep.json, sweep.md and "
    "sweep.png hold the figures of all. The same command again goes on with what is not finished, "
    "runs seeds that are new, and leaves alone those that are done."
)

OPTIONS = ("--seeds", "--jobs", "--reach", "--metric", "--name", "--out")


@dataclass
class Words:
    """The command line, taken apart."""

    recipe: str
    options: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Runs a sweep to its end; 0 when all its seeds are finished, 1 when one failed."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(page(USAGE, "", [("", WORDS)], CLOSING))
        return 0
    words = take_apart(argv)
    from plaudit.cli.progress import progress_for
    from plaudit.cli.run import Words as RunWords
    from plaudit.cli.run import tuned_by

    recipe = load_recipe(tuned_by(RunWords(words.recipe, flags=words.flags)))
    sweep, title = prepared(words, recipe)

    progress = progress_for(sys.stdout)
    progress.note(f"Sweep folder: {sweep.folder}")
    _run(sweep, progress, command("sweep", *argv))
    return _tell(sweep, title, words, progress)


def take_apart(argv: list[str]) -> Words:
    """Finds the recipe (the first word) and the options of `sweep`; the rest are recipe keys."""
    rest = list(argv)
    if rest[0].startswith("-"):
        raise UserError(f"name a recipe before {rest[0]}: plaudit sweep RECIPE --seeds 0..9")
    words = Words(rest.pop(0))
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option in ("--seed", "--resume"):
            right = (
                "--seeds, as in --seeds 0..9" if option == "--seed" else "the same command again"
            )
            raise UserError(f"a sweep takes no {option}; give {right}")
        if option not in OPTIONS:
            words.flags.append(word)
            continue
        if not equals:
            if not rest or (rest[0].startswith("--") and option != "--reach"):
                raise UserError(f"{option} needs a value; 'plaudit sweep --help' shows one")
            value = rest.pop(0)
        words.options[option.removeprefix("--")] = value
    if "seeds" not in words.options:
        raise UserError("say which seeds: --seeds 0..9, or --seeds 0,1,5")
    return words


def seeds_of(text: str) -> list[int]:
    """Of "0..9", "0,1,5" or a mixture; every seed once."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?", part)
        if found is None:
            raise UserError(f"--seeds {text}: write 0..9, or 0,1,5")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise UserError(f"--seeds {text}: {part.strip()} runs backwards")
        seeds += range(first, last + 1)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise UserError(f"--seeds {text}: the seed {twice[0]} stands twice")
    return seeds


def prepared(words: Words, recipe: Recipe) -> tuple[Sweep, str]:
    """The sweep with its folder and its recipe file written, and its title."""
    from plaudit.cli.run import parse_flags
    from plaudit.pipelines.registry import find_job
    from plaudit.pipelines.sweep import Sweep
    from plaudit.records.config import dump_yaml
    from plaudit.records.files import write_text

    seeds = seeds_of(words.options["seeds"])
    jobs = _positive("--jobs", words.options.get("jobs", "1"))
    _level(words)
    job = find_job(recipe.pipeline)
    config = parse_flags(job, recipe, words.flags, own=[option[2:] for option in OPTIONS])
    if "seed" not in type(config).model_fields:
        raise UserError(f"the recipe {words.recipe} has no key 'seed', so a sweep cannot vary it")
    config = config.model_copy(update={"seed": 0})  # each seed is a flag over the same file
    folder = _folder(words, recipe, config)
    total = getattr(config, "steps", getattr(config, "num_steps", None))
    sweep = Sweep(folder, seeds, jobs, total, words.options.get("metric"))
    if sweep.recipe.exists():
        _require_same(sweep, config, recipe.pipeline)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not a sweep; choose another --name")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(sweep.recipe, dump_yaml(config, pipeline=recipe.pipeline))
    place = getattr(config, "env", getattr(config, "world", None))
    return sweep, f"{recipe.pipeline} on {place}" if place else recipe.pipeline


def _folder(words: Words, recipe: Recipe, config: Config) -> Path:
    from plaudit.cli.run import out_path
    from plaudit.records.runs import RUNS, named_path

    name, out = words.options.get("name"), words.options.get("out")
    if name is not None and out is not None:
        raise UserError("--name and --out both say where to keep the sweep; give one of them")
    if out is not None:
        return out_path(out)
    if name is not None:
        return named_path(name)
    place = getattr(config, "env", getattr(config, "world", ""))
    own = recipe.name if recipe.name != place else recipe.pipeline.rpartition("/")[2]
    stem = re.sub(r"[^\w.-]+", "-", f"{own} {place}").strip("-.")
    return RUNS / f"{stem}-sweep"


def _require_same(sweep: Sweep, config: Config, pipeline: str) -> None:
    """UserError where the folder holds a sweep of something else."""
    from plaudit.records.config import resolve

    before = load_recipe(sweep.recipe)
    other = ("pipeline", before.pipeline, pipeline) if before.pipeline != pipeline else None
    if other is None:
        held = resolve(type(config), before)
        for name in type(config).model_fields:
            if getattr(held, name) != getattr(config, name):
                other = (name, getattr(held, name), getattr(config, name))
                break
    if other is not None:
        name, was, asked = other
        raise UserError(
            f"{sweep.folder} holds a sweep with {name} = {was}, not {asked}; choose another --name"
        )


def _run(sweep: Sweep, progress: Progress, again: str) -> None:
    from plaudit.pipelines.sweep import run_seeds

    with Interrupt(progress.note) as interrupt:
        try:
            run_seeds(sweep, progress=progress, interrupt=interrupt)
        except Interrupted as stopped:
            raise Interrupted(f"{stopped}. Continue with: {again}") from None
        except KeyboardInterrupt:
            raise Interrupted(f"quit. Continue from what was saved with: {again}") from None


def _tell(sweep: Sweep, title: str, words: Words, progress: Progress) -> int:
    """Writes and prints the figures of the seeds that are finished."""
    from plaudit.pipelines.figures.sweep import figures, write_figures

    paths = {seed: sweep.path(seed) for seed in sweep.seeds}
    if sweep.failed and not any(sweep.finished(seed) for seed in sweep.seeds):
        first = sweep.failed[min(sweep.failed)]
        raise UserError(f"every seed failed, the first with: {first}")
    found = figures(title, paths, failed=sweep.failed, metric=sweep.metric, reach=_level(words))
    for line in write_figures(sweep.folder, found):
        progress.note(line)
    kept = [
        name for name in ("sweep.md", "sweep.json", "sweep.png") if (sweep.folder / name).exists()
    ]
    progress.note(f"Kept in {sweep.folder}: {', '.join(kept)}")
    return 1 if sweep.failed else 0


def _level(words: Words) -> float | None:
    text = words.options.get("reach")
    try:
        return None if text is None else float(text)
    except ValueError:
        raise UserError(f"--reach {text}: write a number, as in --reach 475") from None


def _positive(option: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise UserError(f"{option} {text}: write a whole number of at least 1")
    return int(text)
