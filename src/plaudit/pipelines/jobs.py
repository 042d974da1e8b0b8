"""Jobs from anywhere: found, started, watched, stopped, resumed and finished.

    work = start("rlhf", {"model": "my-model"}, name="first")      or   resume("runs/first")
    results = work.finish(progress=..., interrupt=...)             to its end, or Interrupted

    run = plaudit.run("rlhf", model="my-model", prompts="p.jsonl", ppo={"num_steps": 3})
    for stage, event in run: ...                                   as they come; run.stop() stops it
    results = run.result()

The command line, Python and a web page are three faces of this file: none of them holds anything
that a job needs. Keys are those of the recipe; what has keys inside is a dict of them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.pipelines.drive import Progress, Silent
from plaudit.pipelines.registry import Job, find_job
from plaudit.records.config import Config, resolve
from plaudit.records.errors import UserError, command, nearest
from plaudit.records.events import Event
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.recipes import load_recipe, shipped_recipes, tuned_recipe
from plaudit.records.runs import RunFolder, named_path

DEFAULT_ENV = "CartPole-v1"
"""The environment of a control recipe that names none."""


@dataclass(frozen=True)
class Work:
    """A job with its config and its locked run folder, begun or to be gone on with."""

    job: Job
    config: Config
    run: RunFolder
    folder: Path
    """Where the run was begun: its relative paths start there."""
    is_new: bool = True

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return command("run", "--resume", self.run.path)

    def finish(self, *, progress: Progress, interrupt: Interrupt) -> dict[str, Any]:
        """Work to the end, in this thread; the results, which the run folder keeps.

        Raises UserError for what the job refuses, with what to do, and Interrupted once a stop that
        `interrupt` was asked for has been saved. A folder in which nothing was done is removed.
        """
        try:
            with self.run, contextlib.chdir(self.folder):
                return self._finish(progress, interrupt)
        except UserError:
            if self.is_new:  # so that the same name serves the corrected job
                self.run.discard_if_nothing_done()
            raise

    def _finish(self, progress: Progress, interrupt: Interrupt) -> dict[str, Any]:
        run = self.run
        try:
            results = self.job.run(self.config, run, progress=progress, interrupt=interrupt)
        except UserError as error:
            if not run.anything_done:
                raise
            mended = f"once that is mended: {self.again}"
            what = f"what was done is in {run.path}" if error.new_run else mended
            raise UserError(f"{error}\nplaudit: {what}") from error
        except Interrupted as stopped:
            raise Interrupted(f"{stopped}. Saved. Continue with: {self.again}") from None
        except KeyboardInterrupt:
            raise Interrupted(f"quit. Continue from what was saved with: {self.again}") from None
        if not run.finished:
            run.finish(results)
        return results


def start(
    recipe: str | Path,
    keys: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    like: str | None = None,
) -> Work:
    """A new run of a recipe (a file, or the name of a shipped one) with `keys` over it.

    It is kept in runs/NAME, in the folder `out`, or under a name of its own. For a control algorithm
    the recipe is the one tuned for the environment that is asked for, where one is shipped. `like`
    names a profile of the recipe: the definitions of a paper or of another library.
    Raises UserError for a recipe, a key or a place that cannot be used.
    """
    if name is not None and out is not None:
        raise UserError("name and out both say where to keep the run; give one of them")
    given = dict(keys or {})
    loaded = load_recipe(profile(tuned_for(str(recipe), given.get("env")), like))
    job = find_job(loaded.pipeline)
    config = resolve(job.config, loaded, given, own=("name", "out", "like"))
    target = named_path(name) if name is not None else None if out is None else Path(out).absolute()
    return begin(job, config, target, pipeline=loaded.pipeline, recipe=loaded.name)


def begin(
    job: Job, config: Config, target: Path | None, *, pipeline: str, recipe: str | None
) -> Work:
    """A new run of a job with a whole config; None: under runs/, with a name of its own."""
    run = RunFolder.create(target, config, pipeline=pipeline, recipe=recipe)
    return Work(job, config, run, Path.cwd())


def resume(target: str | Path) -> Work:
    """An unfinished run, by name or folder, to be gone on with.

    Raises UserError where there is none, or where it is finished or at work elsewhere.
    """
    run = RunFolder.resume(target)
    recipe = load_recipe(run.path / "config.yaml")
    began_in = run.began_in()
    if began_in != Path.cwd():  # its relative paths start there
        run.path = run.path.resolve()
    with contextlib.chdir(began_in):
        job = find_job(recipe.pipeline)
        return Work(job, resolve(job.config, recipe), run, began_in, is_new=False)


def tuned_for(recipe: str, env: str | None) -> str:
    """The recipe to take: for a control algorithm, the one tuned for the environment, if any."""
    if not recipe.startswith("control/") or Path(recipe).is_file():
        return recipe
    return tuned_recipe(recipe, env or DEFAULT_ENV)


def profile(recipe: str, like: str | None) -> str:
    """The shipped recipe `recipe`/`like`; UserError where there is none."""
    if like is None:
        return recipe
    if f"{recipe}/{like}" not in shipped_recipes():
        known = [n.rpartition("/")[2] for n in shipped_recipes() if n.startswith(f"{recipe}/")]
        have = f"there are {', '.join(known)}" if known else "it has no profiles"
        raise UserError(f"no profile {like!r} of {recipe}{nearest(like, known)}: {have}")
    return f"{recipe}/{like}"


class Running:
    """A job that this program started: a stream of what it says, a way to stop it, its results.

    `path` is the run folder. The job works in a thread of its own and waits for whoever iterates;
    `result` alone works in the calling thread.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._interrupt = Interrupt()
        self._asked = False
        self._results: dict[str, Any] | None = None
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.path = work.run.path

    def __iter__(self) -> Iterator[tuple[str, Event]]:
        """(stage, event) as they come; ends when the job does, and raises what it raised.

        Ends in silence after `stop`. Ctrl-C asks for a stop too, and raises KeyboardInterrupt once
        all is saved; a second one at once. A checkpoint's state holds until the next event is asked
        for.
        """
        if self._thread is not None or self._results is not None:
            raise UserError("this job is at work already: iterate it once")
        heard = _Channel()
        self._thread = threading.Thread(target=self._work_in_thread, args=(heard,), daemon=True)
        self._thread.start()
        try:
            with self._interrupt:
                while (said := heard.take()) is not None:
                    yield said
        finally:
            self._interrupt.request()  # whoever stops iterating stops the job where it can go on
            heard.open()
            self._thread.join()
        if self._failed is not None and not isinstance(self._failed, Interrupted):
            raise self._failed
        if self.stopped and not self._asked:
            raise KeyboardInterrupt(self._how_to_go_on())

    def stop(self) -> None:
        """Ask the job to save and stop at its next checkpoint."""
        self._asked = True
        self._interrupt.request()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before its end, with all saved."""
        return isinstance(self._failed, Interrupted)

    def result(self) -> dict[str, Any]:
        """The results, once the job is at its end: it is worked to there if need be.

        Raises UserError for what the job refuses, and where it was stopped.
        """
        if self._thread is None and self._results is None:
            with self._interrupt:
                self._finish(Silent())
        if isinstance(self._failed, Interrupted):
            raise UserError(self._how_to_go_on())
        if self._failed is not None:
            raise self._failed
        assert self._results is not None, "a job that is being iterated has no results yet"
        return self._results

    def _how_to_go_on(self) -> str:
        return f"the run was stopped: plaudit.resume({str(self.path)!r}) goes on"

    def _work_in_thread(self, heard: _Channel) -> None:
        try:
            self._finish(heard)
        finally:
            heard.close()

    def _finish(self, progress: Progress) -> None:
        try:
            self._results = self._work.finish(progress=progress, interrupt=self._interrupt)
        except (Exception, Interrupted) as error:  # told to whoever asks, in their own thread
            self._failed = error


class _Channel(Silent):
    """Progress as a stream: the job waits until what it said has been taken and looked at."""

    def __init__(self) -> None:
        self._said: queue.Queue[tuple[str, Event] | None] = queue.Queue()
        self._seen = threading.Semaphore(0)
        self._stage, self._is_open, self._took = "", False, False

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None:
        self._stage = stage

    def show(self, event: Event) -> None:
        if self._is_open:
            return
        self._said.put((self._stage, event))
        self._seen.acquire()

    def take(self) -> tuple[str, Event] | None:
        """The next thing said; None at the end. What was taken before has been looked at."""
        if self._took:
            self._seen.release()
        self._took = True
        return self._said.get()

    def open(self) -> None:
        """Let the job go on without being heard."""
        self._is_open = True
        self._seen.release()

    def close(self) -> None:
        """The job is at its end."""
        self._said.put(None)


def run_job(
    recipe: str | Path,
    /,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    like: str | None = None,
    **keys: Any,
) -> Running:
    """Starts a recipe with these keys; `plaudit.run`. As `start`, and nothing works yet."""
    return Running(start(recipe, keys, name=name, out=out, like=like))


def resume_job(target: str | Path) -> Running:
    """Goes on with an unfinished run, by name or folder; `plaudit.resume`."""
    return Running(resume(target))
