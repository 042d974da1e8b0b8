"""`plaudit run`: a recipe, flags over it, a run folder, and the way back after a stop."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from plaudit.cli.words import NAMES, page
from plaudit.records.errors import UserError, command
from plaudit.records.interrupt import Interrupt
from plaudit.records.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from plaudit.pipelines.jobs import Work
    from plaudit.pipelines.registry import Job
    from plaudit.records.config import Config

USAGE = (
    "plaudit run RECIPE [--name NAME | --out FOLDER] [--check] [--KEY VALUE ...]",
    "plaudit run --resume RUN",
)

WORDS = (
    (
        "RECIPE",
        "a YAML file, or the name of a shipped recipe such as rlhf ('plaudit ls' lists them)",
    ),
    ("--KEY VALUE", "any key of the recipe, as in --ppo.lr 1e-5; flags win over the file"),
    (
        "--like NAME",
        "definitions of a paper or a library: paper, trl, verl, dapo (grpo and its kin)",
    ),
    ("--name NAME", "keep the run in runs/NAME (default: runs/<recipe>-<date>-<number>); " + NAMES),
    ("--out FOLDER", "keep the run in this folder"),
    ("--check", "only say what would be done, and refuse what cannot be; nothing is left behind"),
    ("--resume RUN", "go on with an unfinished run, by name or folder"),
)

CLOSING = "'plaudit run RECIPE --help' lists every key with its sentence."

PLACE = "Kept in runs/; --name NAME or --out FOLDER choose where ('plaudit run --help')."

OWN = ("name", "out", "like", "check", "resume")
"""Options of this verb, which stand among the recipe's keys."""


@dataclass
class Words:
    """The command line, taken apart."""

    recipe: str | None = None
    name: str | None = None
    out: str | None = None
    resume: str | None = None
    like: str | None = None
    check: bool = False
    flags: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Runs or resumes a job; returns 0 when it is done."""
    words = take_apart(argv)
    if words.recipe is None and words.resume is None:
        if not argv or set(words.flags) & {"-h", "--help"}:
            print(page(USAGE, "", [("", WORDS)], CLOSING))
            return 0
        raise UserError(f"name a recipe before {words.flags[0]}: plaudit run RECIPE --key value")
    if words.resume is not None:
        return _resume(words)
    return _start(words)


def take_apart(argv: list[str]) -> Words:
    """Finds the recipe (the first word) and the options of `run`; all else belongs to the recipe."""
    words, rest = Words(), list(argv)
    if rest and not rest[0].startswith("-"):
        words.recipe = rest.pop(0)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--check":
            words.check = True
            continue
        if option not in ("--name", "--out", "--like", "--resume"):
            words.flags.append(word)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{option} needs a value, as in {option} demo")
            value = rest.pop(0)
        setattr(words, option.removeprefix("--"), value)
    return words


def parse_flags(
    job: Job, recipe: Recipe, flags: list[str], *, own: Sequence[str] = OWN, verb: str = "run"
) -> Config:
    """The recipe's config with flags over it; --help among them prints every key and leaves."""
    from plaudit.cli.flags import help_page, read_flags
    from plaudit.records.config import resolve

    if set(flags) & {"-h", "--help"}:
        about = " ".join((job.config.__doc__ or "").split())
        called = command(verb, recipe.called)
        print(help_page(job.config, resolve(job.config, recipe), called, about=about, own=PLACE))
        sys.exit(0)
    return resolve(job.config, recipe, words=read_flags(job.config, flags, own))


def _start(words: Words) -> int:
    from plaudit.pipelines.jobs import begin, profile
    from plaudit.pipelines.registry import find_job
    from plaudit.records.runs import named_path, planned_path

    assert words.recipe is not None
    if words.name is not None and words.out is not None:
        raise UserError("--name and --out both say where to keep the run; give one of them")
    tuned = tuned_by(words)
    if words.like is not None:
        tuned = profile(tuned, words.like)
    elif tuned != words.recipe:
        print(f"Recipe: {tuned}, tuned for this environment")
    recipe = load_recipe(tuned)
    job = find_job(recipe.pipeline)
    config = parse_flags(job, recipe, words.flags)
    target = None if words.name is None else named_path(words.name)
    if words.out is not None:
        target = out_path(words.out).absolute()
    if words.check:
        return _check(job, config, planned_path(target, recipe.name))
    return _work(begin(job, config, target, pipeline=recipe.pipeline, recipe=recipe.name))


def out_path(text: str) -> Path:
    """The folder of --out; a shell leaves the ~ of --out=~/runs to us."""
    if not text.strip():
        raise UserError("--out is empty: name a folder, as in --out results/first")
    path = Path(text)
    return path.expanduser() if text.startswith("~/") else path


def _check(job: Job, config: Config, place: Path) -> int:
    """Says what the job would do, as far as it can tell, and does nothing."""
    lines = () if job.check is None else job.check(config, place)
    for line in lines:
        print(line, flush=True)
    if job.check is None:
        print(f"The keys can be used; the job {job.name} offers no check of more than these.")
    print(f"Would be kept in {place}. Nothing was done; without --check it begins.")
    return 0


def tuned_by(words: Words) -> str:
    """The recipe to take, by the environment among the flags."""
    from plaudit.pipelines.jobs import tuned_for

    assert words.recipe is not None
    given = [w.removeprefix("--env=") for w in words.flags if w.startswith("--env=")]
    given += [after for w, after in pairwise(words.flags) if w == "--env"]
    return tuned_for(words.recipe, given[-1] if given else None)


def _resume(words: Words) -> int:
    from plaudit.pipelines.jobs import resume

    assert words.resume is not None
    given = (
        words.recipe,
        words.name,
        words.out,
        words.like,
        "--check" if words.check else None,
        *words.flags,
    )
    extra = [w for w in given if w is not None]
    if extra:
        raise UserError(
            f"a resumed run keeps its recipe, place and keys: leave out {' '.join(extra)},"
            " or start a new run"
        )
    return _work(resume(words.resume))


def _work(work: Work) -> int:
    from plaudit.cli.progress import SayingWhere, progress_for
    from plaudit.cli.show import closing_lines

    progress = SayingWhere(progress_for(sys.stdout), f"Run folder: {work.run.path}")
    with Interrupt(progress.note) as interrupt:
        try:
            work.finish(progress=progress, interrupt=interrupt)
        except UserError:
            raise
        except Exception:
            traceback.print_exc()
            what = f"what was done is in {work.run.path}; retry: {work.again}"
            print(f"\nplaudit: {what}", file=sys.stderr)
            return 1
    for line in closing_lines(work.run):
        progress.note(line)
    return 0
