"""Plaudit's side of `benchmarks/lm.py`: SFT and reward-model steps through the engine, decoding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor
from torch.nn import functional as F

from machine import best_seconds, read_rate
from plaudit.engine.learner import AdamConfig
from plaudit.engine.local import LocalActor, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.loop import CrossEntropy
from plaudit.models.formats.load import load_language_model
from plaudit.models.sampling.sampler import Sampler
from plaudit.ops.products import product
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories
from plaudit.rewards.model import BradleyTerry
from sampler import Case, floor_seconds
from serve import Answer, serve

ADAM = AdamConfig(eps=1e-8)
"""The peers' Adam."""


def trajectories(prompts: list[list[int]], answers: list[list[int]]) -> Trajectories:
    """Rows of token ids as given data; equal prompts are one."""
    known: dict[tuple[int, ...], int] = {}
    group = [known.setdefault(tuple(ids), len(known)) for ids in prompts]
    longest = max(map(len, answers))
    mask = torch.tensor([[t < len(ids) for t in range(longest)] for ids in answers])
    token = torch.tensor([ids + [0] * (longest - len(ids)) for ids in answers])
    return Trajectories.of_answers(
        prompts=[Prompt(text="", ids=ids) for ids in known],
        group=torch.tensor(group),
        token=token,
        mask=mask,
        logp=torch.zeros(token.shape),
        terminated=torch.ones(len(answers), dtype=torch.bool),
        texts=[""] * len(answers),
        sampling=Sampling(max_new_tokens=longest),
    )


class Training:
    """A role that takes one optimiser step on the same rows whenever it is asked."""

    def __init__(self, task: Answer, prompts: list[list[int]], answers: list[list[int]]) -> None:
        self.lm = load_language_model(task["folder"], template="none")
        self.lr = float(task["lr"])
        layers = int(self.lm.model.config.num_hidden_layers)
        self.backbone = SharedBackbone(self.lm, num_top_layers=layers)
        self.backbone.close()
        self.batch = trajectories(prompts, answers)

    def _floor(self, head: Tensor | None) -> Answer:
        """The step's matrix products alone: prompts and answers read once, forwards and backwards.

        Those of the weights are timed at the step's own number of tokens, by the faster of oneDNN
        and torch; attention's, half of each square as it is causal, at the rate of these.
        """
        answered = self.batch.there.sum(1)
        prompt = torch.tensor([len(p.ids) for p in self.batch.prompts])
        num_places = int(prompt.sum() + answered.sum())
        weights = [p for p in self.lm.model.model.layers.parameters() if p.ndim == 2]
        seconds = _products_seconds(weights, num_places)
        flops = 6.0 * num_places * sum(w.numel() for w in weights)
        config: Any = self.lm.model.config
        # A query sees its prompt and what stands before it in its own answer, itself included.
        own = answered * (answered + 1) / 2 + answered * prompt[self.batch.group]
        seen = float(own.sum() + (prompt * (prompt + 1) / 2).sum())
        width = config.hidden_size
        attention = 3 * 2 * 2.0 * seen * width * config.num_hidden_layers
        rate = flops / seconds
        if head is not None:
            seconds += _products_seconds([head], int(self.batch.chosen.sum()))
        return {"floor": seconds + attention / rate, "rate": rate, "places": num_places}


class SFT(Training):
    """Supervised fine-tuning of all layers."""

    def __init__(self, task: Answer) -> None:
        super().__init__(task, task["prompts"], task["answers"])
        self.actor = LocalActor(self.backbone, adam=ADAM)

    def step(self) -> Answer:
        """One step."""
        count = int(self.batch.chosen.sum())
        told = self.actor.update(self.batch, CrossEntropy(), denominator=count, lr=self.lr)
        return {"loss": told["loss"], "grad_norm": told["grad_norm"]}

    def floor(self) -> Answer:
        """Seconds of the products that no step can leave out."""
        return self._floor(self.lm.model.lm_head.weight)


class Reward(Training):
    """A Bradley–Terry reward model, all layers trained: row 2i is preferred to row 2i + 1."""

    def __init__(self, task: Answer) -> None:
        prompts = [ids for ids in task["prompts"] for _ in range(2)]
        pairs = zip(task["chosen"], task["rejected"], strict=True)
        super().__init__(task, prompts, [ids for pair in pairs for ids in pair])
        rows = range(len(task["chosen"]))
        self.pairs = Pairs(
            a=tuple(2 * i for i in rows), b=tuple(2 * i + 1 for i in rows), share=(1.0,) * len(rows)
        )
        self.role = LocalRewardModel(self.backbone, adam=ADAM)
        with torch.no_grad():
            self.role.head.weight.copy_(torch.tensor(task["head"])[None])

    def step(self) -> Answer:
        """One step."""
        told = self.role.update(
            self.batch,
            BradleyTerry(0.0),
            fields={"pairs": self.pairs},
            denominator=len(self.pairs),
            lr=self.lr,
        )
        return {"loss": told["loss"], "grad_norm": told["grad_norm"]}

    def floor(self) -> Answer:
        """Seconds of the products that no step can leave out."""
        return self._floor(None)


class Decode:
    """Sampling to the full length."""

    def __init__(self, task: Answer) -> None:
        self.lm = load_language_model(task["folder"], template="none")
        self.prompts = task["prompts"]
        self.new_tokens = int(task["new_tokens"])
        self.sampler = Sampler(self.lm.model, stop_ids=(), pad_id=0)

    def step(self, seed: int) -> Answer:
        """One answer to each prompt."""
        sampling = Sampling(max_new_tokens=self.new_tokens)
        out = self.sampler.generate(self.prompts, num_answers=1, sampling=sampling, seed=seed)
        assert out.mask.all()
        return {"tokens": out.answer.numel()}

    @torch.no_grad()
    def score(self, rows: list[list[int]]) -> Answer:
        """Log-probabilities of the tokens of each row but its first, by the model's own code."""
        scores = []
        for row in rows:
            logits = self.lm.model(torch.tensor([row])).logits[0, :-1]
            token = torch.tensor(row[1:])[:, None]
            scores.append(logits.log_softmax(-1).gather(-1, token)[:, 0].tolist())
        return {"logp": scores}

    def floor(self) -> Answer:
        """Products and reads that no sampler can leave out; see `benchmarks/sampler.py`."""
        case = Case("", len(self.prompts), 1, len(self.prompts[0]), self.new_tokens)
        with self.sampler.drawing():  # which has the decoder's maps of these weights
            return {"floor": floor_seconds(self.sampler, case, read_rate())}


def _products_seconds(weights: list[Tensor], num_places: int) -> float:
    """Every weight's three products with so many places: forward, and the two gradients."""
    x = {k: torch.randn(num_places, k) for k in {n for w in weights for n in w.shape}}

    def all_by(one: Any) -> None:
        for w in weights:
            y, g = x[w.shape[1]], x[w.shape[0]]
            one(y, w)
            one(g, w.T)
            one(g.T, y.T)

    with torch.no_grad():
        fast = best_seconds(lambda: all_by(product), repeats=3)
        return min(fast, best_seconds(lambda: all_by(F.linear), repeats=3))


SIDES = {"sft": SFT, "reward": Reward, "decode": Decode}


def side(task: Answer) -> Any:
    """The side of a case; those of whole algorithms are in `ours_policy`."""
    if task["case"] in SIDES:
        return SIDES[task["case"]](task)
    import ours_policy

    return ours_policy.SIDES[task["case"]](task)


if __name__ == "__main__":
    sys.modules["ours"] = sys.modules["__main__"]
    serve(side, "torch", "transformers")
