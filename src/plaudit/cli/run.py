"""`plaudit run`: a recipe, flags over it, a run folder, and the way back after a stop."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.cli.words import NAMES, page
from plaudit.records.errors import UserError, command
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.recipes import Recipe, load_recipe, tuned_recipe

if TYPE_CHECKING:
    from plaudit.cli.registry import Job
    from plaudit.pipelines.drive import Progress
    from plaudit.records.config import Config
    from plaudit.records.runs import RunFolder

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
    ("--name NAME", "keep the run in runs/NAME (default: runs/<recipe>-<date>-<number>); " + NAMES),
    ("--out FOLDER", "keep the run in this folder"),
    ("--check", "only say what would be done, and refuse what cannot be; nothing is left behind"),
    ("--resume RUN", "go on with an unfinished run, by name or folder"),
)

CLOSING = "'plaudit run RECIPE --help' lists every key with its sentence."

PLACE = "Kept in runs/; --name NAME or --out FOLDER choose where ('plaudit run --help')."

OWN = ("name", "out", "check", "resume")
"""Options of this verb, which stand among the recipe's keys."""

DEFAULT_ENV = "CartPole-v1"
"""The environment of a control recipe that names none."""


@dataclass
class Words:
    """The command line, taken apart."""

    recipe: str | None = None
    name: str | None = None
    out: str | None = None
    resume: str | None = None
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
        if option not in ("--name", "--out", "--resume"):
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
    from plaudit.cli.registry import find_job
    from plaudit.records.runs import RunFolder, named_path, planned_path

    assert words.recipe is not None
    if words.name is not None and words.out is not None:
        raise UserError("--name and --out both say where to keep the run; give one of them")
    tuned = tuned_for(words)
    if tuned != words.recipe:
        print(f"Recipe: {tuned}, tuned for this environment")
    recipe = load_recipe(tuned)
    job = find_job(recipe.pipeline)
    config = parse_flags(job, recipe, words.flags)
    target = None if words.name is None else named_path(words.name)
    if words.out is not None:
        target = out_path(words.out).absolute()
    if words.check:
        return _check(job, config, planned_path(target, recipe.name))
    run = RunFolder.create(target, config, pipeline=recipe.pipeline, recipe=recipe.name)
    try:
        return _work(job, config, run)
    except UserError:
        run.discard_if_nothing_done()  # so that the same name serves the corrected command
        raise


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


def tuned_for(words: Words) -> str:
    """The recipe to take: for a control algorithm, the one tuned for the environment that is asked
    for, where one is shipped."""
    assert words.recipe is not None
    if not words.recipe.startswith("control/") or Path(words.recipe).is_file():
        return words.recipe
    given = [w.removeprefix("--env=") for w in words.flags if w.startswith("--env=")]
    given += [after for w, after in pairwise(words.flags) if w == "--env"]
    return tuned_recipe(words.recipe, given[-1] if given else DEFAULT_ENV)


def _resume(words: Words) -> int:
    from plaudit.cli.registry import find_job
    from plaudit.records.config import resolve
    from plaudit.records.runs import RunFolder

    assert words.resume is not None
    given = (words.recipe, words.name, words.out, "--check" if words.check else None, *words.flags)
    extra = [w for w in given if w is not None]
    if extra:
        raise UserError(
            f"a resumed run keeps its recipe, place and keys: leave out {' '.join(extra)},"
            " or start a new run"
        )
    run = RunFolder.resume(words.resume)
    recipe = load_recipe(run.path / "config.yaml")
    began_in = run.began_in()
    if began_in != Path.cwd():  # its relative paths start there
        run.path = run.path.resolve()
    with contextlib.chdir(began_in):
        job = find_job(recipe.pipeline)
        return _work(job, resolve(job.config, recipe), run)


def _work(job: Job, config: Config, run: RunFolder) -> int:
    from plaudit.cli.progress import progress_for

    progress = progress_for(sys.stdout)
    again = command("run", "--resume", run.path)
    progress.note(f"Run folder: {run.path}")
    with run, Interrupt(progress.note) as interrupt:
        try:
            results = job.run(config, run, progress=progress, interrupt=interrupt)
        except UserError as error:
            if not run.anything_done:
                raise
            what = (
                f"what was done is in {run.path}"
                if error.new_run
                else f"once that is mended: {again}"
            )
            raise UserError(f"{error}\nplaudit: {what}") from error
        except Interrupted as stopped:
            raise Interrupted(f"{stopped}. Saved. Continue with: {again}") from None
        except KeyboardInterrupt:
            raise Interrupted(f"quit. Continue from what was saved with: {again}") from None
        except Exception:
            traceback.print_exc()
            print(f"\nplaudit: what was done is in {run.path}; retry: {again}", file=sys.stderr)
            return 1
        _finish(run, results, progress)
    return 0


def _finish(run: RunFolder, results: dict[str, Any], progress: Progress) -> None:
    from plaudit.cli.show import closing_lines

    if not run.finished:
        run.finish(results)
    for line in closing_lines(run):
        progress.note(line)
