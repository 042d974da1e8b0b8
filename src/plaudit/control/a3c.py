"""A3C: workers that act and learn each at their own pace, on one set of weights that nobody locks.

Every worker, in a process of its own, repeats:

    1. copy the shared weights;
    2. act for `num_steps` steps in its own copies of the world;
    3. the gradient of the actor-critic loss (see `a2c`) at the copied weights, cut to its norm;
    4. g ← α·g + (1 − α)·Δ², θ ← θ − lr·Δ/√(g + ε), on the shared weights and the shared g, with no
       lock: where two workers write at once, one of their writes to a number may be lost.

Source: Mnih et al. 2016 (1602.01783), algorithm S3 and section 4. Departures: actor and critic are
separate nets, and the loss is a mean over the steps.

What several workers do depends on who was faster, so such a run cannot be repeated bit for bit. It
goes on from its saved weights and statistics, with new episodes. One worker acts in this process,
is repeatable, and goes on exactly.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import signal
import time
import traceback
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator

from plaudit.agents.actor_critic import objective
from plaudit.agents.loop import Loop, Weights
from plaudit.agents.on_policy import Schedule, scheduled
from plaudit.agents.training import watched, worlds_of
from plaudit.control.shared_weights import SharedWeights
from plaudit.envs.make import make_worlds
from plaudit.envs.rewarded import StepReward
from plaudit.envs.rollout import collect
from plaudit.envs.worlds import Episode, Worlds
from plaudit.nets.control_nets import network
from plaudit.nets.optim import clip_grad_norm_
from plaudit.nets.policies import actor
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Event
from plaudit.records.state import Parts, Savable, Saved, SeededGenerator

REPORT_SECONDS = 0.1
"""A worker tells what it has done about this often; it also learns by this that nobody listens any more."""

PATIENCE = 5.0
"""Seconds that workers have to leave when told to, before they are ended."""


class A3CConfig(Loop):
    """Asynchronous advantage actor-critic (Mnih et al. 2016)."""

    num_workers: int = Field(
        2, ge=1, description="Processes that act and learn (2016, section 5: 16); 1: this process."
    )
    num_envs: int = Field(1, ge=1, description="Copies of the environment that each worker has.")
    num_steps: int = Field(
        20, ge=1, description="Steps of each copy behind one gradient (2016, section 8: 5)."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount (2016, section 8).")
    lam: float = Field(
        1.0, ge=0, le=1, description="Decay of GAE; 1 is the n-step return (2016, algorithm S3)."
    )
    value_coef: float = Field(
        1.0, ge=0, description="Weight of half the squared error of the critic."
    )
    entropy_coef: float = Field(
        0.01, ge=0, description="Weight of the entropy (2016, section 8: 0.01)."
    )
    lr: float = Field(7e-4, gt=0, description="Step size of RMSprop (2016, figure S11: near 7e-4).")
    lr_schedule: Schedule = Field(
        "linear", description="Whether lr falls to 0 over the run (2016, section 8: it does)."
    )
    max_grad_norm: float = Field(
        0.5, gt=0, description="Length to which a gradient is cut (OpenAI's A2C)."
    )
    hidden: tuple[int, ...] = Field((64, 64), description="Sizes of the hidden layers.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between the layers.")

    @model_validator(mode="after")
    def _workers_share_only_weights(self) -> A3CConfig:
        if self.num_workers > 1 and (self.normalise_obs or self.normalise_reward):
            raise ValueError(
                "several workers keep no statistics in common: normalise with num_workers 1, or"
                " use a2c"
            )
        if self.num_workers > 1 and self.vector == "processes":
            raise ValueError("each worker is a process already: set vector to sync")
        return self


# --- a worker


class Report(NamedTuple):
    """What a worker has done: steps, the episodes that ended, and the means of its numbers."""

    steps: int
    episodes: list[Episode]
    numbers: dict[str, float]


class Worker:
    """Acts in its own worlds by a copy of the shared weights, and improves the shared ones."""

    def __init__(
        self, config: A3CConfig, shared: SharedWeights, index: int, worlds: Worlds
    ) -> None:
        self._config, self._shared, self._index = config, shared, index
        self.worlds = worlds
        self.draws = SeededGenerator(config.seed, 3 + index + config.num_workers * shared.start)
        self.policy, self.critic = nets(config, self.worlds, np.random.default_rng(0))
        self._params = [*self.policy.parameters(), *self.critic.parameters()]
        self.obs = self.worlds.reset()

    def round(self) -> Report:
        """One rollout and its gradient."""
        config, shared = self._config, self._shared
        shared.copy_to(self._params)
        seen = collect(
            self.worlds,
            lambda obs: self.policy.act(obs, self.draws.rng),
            self.obs,
            config.num_steps,
            to_env=self.policy.to_env,
        )
        self.obs = seen.last_obs
        numbers, back = objective(
            self.policy,
            self.critic,
            seen,
            gamma=config.gamma,
            lam=config.lam,
            value_coef=config.value_coef,
            entropy_coef=config.entropy_coef,
        )
        for p in self._params:
            p.grad = None
        back()
        norm = clip_grad_norm_(self._params, config.max_grad_norm)
        lr = scheduled(config.lr, config.lr_schedule, shared.remaining)
        shared.descend(self._params, lr)
        shared.count(self._index, seen.num_steps)
        return Report(seen.num_steps, seen.episodes, {**numbers, "grad_norm": norm, "lr": lr})


def seed_of_worker(config: A3CConfig, index: int, start: int) -> int:
    """The seed of a worker's worlds; a run that goes on from step `start` meets other episodes."""
    return int(np.random.SeedSequence([config.seed, 2, index, start]).generate_state(1)[0])


def nets(config: A3CConfig, worlds: Worlds, rng: np.random.Generator) -> tuple[Any, Any]:
    """Actor and critic."""
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(worlds.obs_spec, worlds.action_spec, rng=rng, **shape)
    return policy, network(worlds.obs_spec, 1, rng=rng, gain_out=1.0, **shape)


def work(config: A3CConfig, shared: SharedWeights, index: int, pipe: Connection) -> None:
    """The life of a worker's process: rounds until the end, reports now and then."""
    torch.set_num_threads(1)
    try:
        seed = seed_of_worker(config, index, shared.start)
        worlds = make_worlds(config, seed=seed, gamma=config.gamma)
        worker = Worker(config, shared, index, worlds)
        reports: list[Report] = []
        told = time.monotonic()
        while not shared.finished:
            reports.append(worker.round())
            if time.monotonic() - told > REPORT_SECONDS:
                pipe.send(total_report(reports))
                reports, told = [], time.monotonic()
        if reports:
            pipe.send(total_report(reports))
    except BrokenPipeError:
        return  # the parent is gone
    except UserError as error:
        pipe.send(str(error))
    except Exception:
        pipe.send(f"worker {index} of a3c failed:\n{traceback.format_exc()}")


def total_report(reports: list[Report]) -> Report:
    """Several reports as one."""
    names = reports[0].numbers
    means = {name: math.fsum(r.numbers[name] for r in reports) / len(reports) for name in names}
    episodes = [episode for report in reports for episode in report.episodes]
    return Report(sum(report.steps for report in reports), episodes, means)


# --- the loop


class Workers(Protocol):
    """Whoever does the work: one worker here, or several elsewhere."""

    def gather(self) -> list[Report]:
        """What was done since; waits a little where nothing was."""
        ...

    def fault(self) -> str | None:
        """Why the work cannot go on."""
        ...

    def close(self) -> None:
        """Ends the work."""
        ...


class LocalWorker:
    """One worker in this process."""

    def __init__(self, worker: Worker, *, lent: bool) -> None:
        """Worlds that are `lent` are closed by their owner."""
        self.worker, self._lent = worker, lent

    def gather(self) -> list[Report]:
        """One round."""
        return [self.worker.round()]

    def fault(self) -> str | None:
        """Nothing: what goes wrong here is raised here."""
        return None

    def close(self) -> None:
        """Ends the worlds that were made here."""
        if not self._lent:
            self.worker.worlds.close()

    def state(self) -> Saved:
        """The worlds and the generator, side by side."""
        return self._parts().state()

    def restore(self, saved: Saved) -> None:
        """Goes on from them."""
        parts = self._parts()
        parts.restore(saved)
        self.worker.obs = parts.restored["worlds"]

    def _parts(self) -> Parts:
        return Parts(worlds=self.worker.worlds, draws=self.worker.draws)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C and a closed terminal wait meanwhile; processes begun within never hear of them: the
    parent tells them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where a console's Ctrl-C works otherwise
        yield
        return
    resource_tracker.ensure_running()  # it would let Ctrl-C through again when it starts later
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


class WorkerProcesses:
    """Workers in processes of their own."""

    def __init__(self, config: A3CConfig, shared: SharedWeights) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
        self._shared = shared
        self._reason: str | None = None
        self._pipes: dict[Connection, int] = {}
        self._processes = []
        for index in range(config.num_workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=work, args=(config, shared, index, theirs), name=f"a3c-{index}", daemon=True
            )
            with without_interrupts():
                process.start()
            theirs.close()  # so that the pipe breaks when its worker dies
            self._pipes[ours] = index
            self._processes.append(process)

    def gather(self) -> list[Report]:
        """What came in, waiting for the first of it."""
        reports: list[Report] = []
        ready = multiprocessing.connection.wait(list(self._pipes), timeout=1.0)
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                while pipe.poll():
                    told = pipe.recv()
                    if isinstance(told, str):
                        self._reason = self._reason or told
                    else:
                        reports.append(told)
            except EOFError:
                self._left(pipe)
        return reports

    def _left(self, pipe: Connection) -> None:
        """A worker's end of the pipe is closed: it is done, or dead."""
        index = self._pipes.pop(pipe)
        pipe.close()
        process = self._processes[index]
        process.join(PATIENCE)
        if process.exitcode != 0 and self._reason is None:
            self._reason = (
                f"worker {index} of a3c died ({_why(process.exitcode)}) at step"
                f" {self._shared.step}; the run can be resumed from its last checkpoint"
            )

    def fault(self) -> str | None:
        """What a worker died of, or that none is left."""
        if self._reason is None and not self._pipes and self._shared.step < self._shared.total:
            return "the workers of a3c left before the end"
        return self._reason

    def close(self) -> None:
        """Tells the workers to leave, and ends those that do not."""
        self._shared.stop()
        deadline = time.monotonic() + PATIENCE
        while any(p.is_alive() for p in self._processes) and time.monotonic() < deadline:
            if self._pipes:
                self.gather()  # empties the pipes: a worker may be waiting to report
            else:
                time.sleep(0.01)
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def a3c(
    config: A3CConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by A3C, from the beginning or from what was saved.

    Several workers make their worlds themselves, each in its process: `worlds` and `reward` are for
    one worker.
    """
    if config.num_workers > 1 and (worlds is not None or reward is not None):
        what = "worlds" if worlds is not None else "a reward"
        raise UserError(
            f"a3c was given {what} of the caller's, which its {config.num_workers} workers in other"
            " processes cannot use: set num_workers to 1, or use a2c"
        )
    if config.num_workers == 1:
        seed = seed_of_worker(config, 0, 0)
        acting = worlds_of(config, worlds, reward, seed=seed, gamma=config.gamma)
    else:  # only to learn the spaces
        acting = make_worlds(config, seed=config.seed, num_envs=1)
        acting.close()
    policy, critic = nets(config, acting, SeededGenerator(config.seed, 0).rng)
    params = [*policy.parameters(), *critic.parameters()]
    shared = SharedWeights(params, config.num_workers, config.steps)
    parts: dict[str, Savable] = {"critic": Weights(critic), "shared": shared}
    alone: LocalWorker | None = None
    if config.num_workers == 1:
        alone = LocalWorker(Worker(config, shared, 0, acting), lent=worlds is not None)
        parts["alone"] = alone
    monitor, kept = watched("a3c", config, policy, acting.statistics, saved, **parts)

    workers: Workers = WorkerProcesses(config, shared) if alone is None else alone
    try:
        while not monitor.finished:
            for report in workers.gather():
                monitor.count(report.steps, report.episodes)
                monitor.add(report.numbers)
            shared.copy_to(params)
            fault = workers.fault()
            if fault is not None:
                yield Checkpoint(monitor.step, kept.state, due=True)
                raise UserError(fault)
            yield from monitor.events(kept)
    finally:
        workers.close()
    yield monitor.done()
