"""What every control loop shares: its length, when it looks up from its work, and how it is saved.

A loop is a generator `algorithm(config, *, worlds, reward, saved)` of events. It counts environment steps of all
copies together. `Monitor` says `Step`, `Evaluation` and `Checkpoint` at their times; everything that
the loop draws or remembers is in its `Parts`, so that a saved loop goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from plaudit.agents.evaluation import Act, Evaluator
from plaudit.envs.settings import WorldSettings
from plaudit.envs.worlds import Episode
from plaudit.nets.control_nets import arrays, load_arrays
from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Step
from plaudit.records.state import Parts, Saved

NUM_LOGS, NUM_EVALUATIONS, NUM_SAVES = 200, 10, 20
"""How often a run logs, evaluates and saves, where its config does not say."""


class Loop(WorldSettings):
    """The part of every control config that says for how long and what is watched."""

    steps: int = Field(
        100_000, ge=1, description="Environment steps in all, of all copies together."
    )
    log_every: int | None = Field(
        None, ge=1, description=f"Steps between two lines of metrics; none: {NUM_LOGS} lines a run."
    )
    eval_every: int | None = Field(
        None,
        ge=0,
        description=f"Steps between evaluations; 0: never, none: {NUM_EVALUATIONS} a run.",
    )
    eval_episodes: int = Field(
        20, ge=2, description="Episodes of one evaluation, the same ones each time."
    )
    save_every: int | None = Field(
        None, ge=1, description=f"Steps between checkpoints; none: {NUM_SAVES} a run."
    )


class Weights:
    """The parameters of nets, as a part to be kept."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def state(self) -> Saved:
        """Every parameter by name, copied."""
        return arrays(self._module), {}

    def restore(self, saved: Saved) -> None:
        """Takes them back."""
        load_arrays(self._module, saved[0])


class Monitor:
    """Counts the steps of a loop, and says what is due after each of its rounds.

    Metrics are averaged over the rounds between two lines of the log. The counter, the sums and the
    best evaluation so far are saved with the rest.
    """

    def __init__(self, config: Loop, act: Act, copy_statistics: Callable[[Any], None]) -> None:
        """`act(obs)` is the policy as it is to be judged; `copy_statistics(worlds)` hands the
        normaliser's statistics to the worlds of the evaluation."""
        total = config.steps
        self.step, self.total = 0, total
        self.best = -np.inf
        self._log_every = config.log_every or max(1, total // NUM_LOGS)
        self._save_every = config.save_every or max(1, total // NUM_SAVES)
        every = config.eval_every
        self._eval_every = max(1, total // NUM_EVALUATIONS) if every is None else every
        self._evaluator = Evaluator(config, config.eval_episodes) if self._eval_every else None
        self._act, self._copy_statistics = act, copy_statistics
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._reported = 0

    @property
    def remaining(self) -> float:
        """Share of the run that is still to come, from 1 to 0: what schedules fall with."""
        return max(0.0, 1.0 - self.step / self.total)

    @property
    def finished(self) -> bool:
        """True once all steps are taken."""
        return self.step >= self.total

    def count(self, steps: int, episodes: list[Episode]) -> None:
        """Steps that were taken, and the episodes that ended in them."""
        self.step += steps
        for episode in episodes:
            self.add({"rollout/return": episode.ret, "rollout/length": episode.length})
            if episode.given_ret is not None:
                self.add({"rollout/given_return": episode.given_ret})

    def add(self, metrics: Mapping[str, float]) -> None:
        """Numbers of this round, for the next line of the log."""
        sums, counts = self._sums, self._counts
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + value
            counts[name] = counts.get(name, 0) + 1

    def events(self, parts: Parts) -> Iterator[Event]:
        """What has come due since the loop last asked; its last event is always a `Checkpoint`."""
        before, self._reported = self._reported, self.step
        if self._crossed(self._log_every, before) or self.finished:
            means = {name: total / self._counts[name] for name, total in self._sums.items()}
            self._sums, self._counts = {}, {}
            yield Step(self.step, self.total, means)
        best = False
        if self._evaluator and (self._crossed(self._eval_every, before) or self.finished):
            metrics = self._evaluator(self._act, self._copy_statistics)
            best = metrics["eval/return"] >= self.best
            self.best = max(self.best, metrics["eval/return"])
            yield Evaluation(self.step, metrics)
        due = self._crossed(self._save_every, before) or self.finished
        yield Checkpoint(self.step, parts.state, due=due, best=best)

    def done(self) -> Done:
        """The loop's last word."""
        return Done(self.step, {} if self.best == -np.inf else {"eval/best": self.best})

    def _crossed(self, every: int, before: int) -> bool:
        return self.step // every > before // every

    def state(self) -> Saved:
        """Counter, sums and the best so far."""
        facts = {
            "step": self.step,
            "best": None if self.best == -np.inf else self.best,
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }
        return {}, facts

    def restore(self, saved: Saved) -> None:
        """Goes on counting from there."""
        facts = saved[1]
        self.step = self._reported = facts["step"]
        self.best = -np.inf if facts["best"] is None else facts["best"]
        self._sums, self._counts = dict(facts["sums"]), dict(facts["counts"])
