"""Plaudit's side of `benchmarks/lm.py` where a whole algorithm is timed: DPO, KTO, GRPO, RLOO.

A step is all that the algorithm's own loop does between two checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from machine import read_rate
from ours import ADAM, Training
from plaudit.engine.local import LocalActor
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.kto import KTOConfig, kto, mismatched
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.records.events import Checkpoint, Event, Step
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories
from sampler import Case, floor_seconds
from serve import Answer

MOST_STEPS = 100_000
"""So many that the learning rate, which falls to 0 over all of them, stays what it is."""


class Algorithm(Training):
    """The steps of a loop, one at a time."""

    loop: Iterator[Event]

    def step(self) -> Answer:
        """To the next checkpoint."""
        told: Answer = {}
        for event in self.loop:
            if isinstance(event, Step):
                told = event.metrics
            if isinstance(event, Checkpoint):
                return {"loss": told.get("loss", told.get("loss/policy_avg")), **self.also(told)}
        raise AssertionError("the loop ended")

    def also(self, told: Answer) -> Answer:
        """What else is said of a step."""
        return {}


class DPO(Algorithm):
    """Pairs in one batch; the reference's log-probabilities are read once, beforehand."""

    def __init__(self, task: Answer) -> None:
        num = len(task["prompts"])
        prompts = [ids for ids in task["prompts"] for _ in range(2)]
        both = zip(task["chosen"], task["rejected"], strict=True)
        super().__init__(task, prompts, [ids for pair in both for ids in pair])
        rows = range(num)
        pairs = Pairs(
            a=tuple(2 * i for i in rows), b=tuple(2 * i + 1 for i in rows), share=(1.0,) * num
        )
        actor = LocalActor(self.backbone, adam=ADAM)
        config = DPOConfig(
            lr=self.lr, beta=0.1, batch_size=num, num_epochs=MOST_STEPS, save_every=MOST_STEPS
        )
        logp_ref = actor.logprobs(self.batch)
        self.loop = dpo(
            config, actor=actor, data=self.batch, pairs=pairs, logp_ref=logp_ref, seed=0
        )

    def floor(self) -> Answer:
        """Every prompt and answer read once, forwards and backwards."""
        return self._floor(self.lm.model.lm_head.weight)


class KTO(Algorithm):
    """Answers in one batch, half of them good; z is of answers behind other prompts."""

    def __init__(self, task: Answer) -> None:
        super().__init__(task, task["prompts"], task["answers"])
        actor = LocalActor(self.backbone, adam=ADAM)
        num, other = len(task["answers"]), mismatched(self.batch)
        assert other is not None
        config = KTOConfig(
            lr=self.lr, beta=0.1, batch_size=num, num_epochs=MOST_STEPS, save_every=MOST_STEPS
        )
        self.loop = kto(
            config,
            actor=actor,
            data=self.batch,
            is_good=torch.tensor(task["is_good"]),
            logp_ref=actor.logprobs(self.batch),
            logp_ref_other=actor.logprobs(other),
            seed=0,
        )

    def floor(self) -> Answer:
        """All read once, forwards and backwards, and answers behind other prompts once forwards."""
        found = self._floor(self.lm.model.lm_head.weight)
        return {**found, "floor": found["floor"] * 4 / 3}


class ByToken:
    """A judge whose score needs no model: the share of an answer's tokens with an even id."""

    names, weights = ("even",), (1.0,)

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """A score for each answer."""
        even = (batch.token % 2 == 0) & batch.chosen
        return {"even": even.sum(1).double() / batch.chosen.sum(1)}


class Groups(Algorithm):
    """Answers drawn, judged, and learned from in one update."""

    algorithm: Any = staticmethod(grpo)
    config: Any = GRPOConfig

    def __init__(self, task: Answer) -> None:
        per, new = int(task["answers_per_prompt"]), int(task["new_tokens"])
        drawn = [ids for ids in task["prompts"] for _ in range(per)]
        # rows of the drawn answers' shape, for the floor
        super().__init__(task, drawn, [[1] * new for _ in drawn])
        num = len(task["prompts"])
        self.case = Case("", num, per, len(task["prompts"][0]), new)
        self.prompts = [Prompt(text=str(i), ids=ids) for i, ids in enumerate(task["prompts"])]
        self.actor = LocalActor(self.backbone, adam=ADAM)
        keys = {"num_steps": MOST_STEPS, "prompts_per_step": num, "answers_per_prompt": per}
        keys |= {"lr": self.lr, "num_minibatches": 1, "save_every": MOST_STEPS}
        self.loop = self.algorithm(
            self.config(**keys, kl_coef=0.0),
            actor=self.actor,
            judge=ByToken(),
            prompts=self.prompts,
            sampling=Sampling(max_new_tokens=new),
            seed=0,
        )

    def also(self, told: Answer) -> Answer:
        """How many tokens were drawn and learned from."""
        return {"tokens": told["num_tokens"]}

    def floor(self) -> Answer:
        """Drawing and one update."""
        update = self._floor(self.lm.model.lm_head.weight)
        sampler = self.backbone.sampler
        with torch.no_grad(), sampler.drawing():
            draw = floor_seconds(sampler, self.case, read_rate())
        return {**update, "floor": update["floor"] + draw, "draw": draw}


class RLOO(Groups):
    """As GRPO, with the answer's whole probability ratio and the mean of the others as baseline."""

    algorithm = staticmethod(rloo)
    config = RLOOConfig


SIDES: dict[str, Any] = {"dpo": DPO, "kto": KTO, "grpo": Groups, "rloo": RLOO}
