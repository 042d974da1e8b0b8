"""Plaudit's side of `benchmarks/parity.py`: loss and gradient of one batch, before any step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ours import trajectories
from plaudit.engine.local import LocalActor, LocalReference, LocalRewardModel
from plaudit.engine.role import Taught
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.dpo import DPOConfig
from plaudit.lm.grpo import GRPOConfig, advantages
from plaudit.lm.kto import KTOConfig, label_loss, mismatched, mismatched_level
from plaudit.lm.learning import Surrogate, counted
from plaudit.lm.loop import CrossEntropy, RunningMoments
from plaudit.lm.pairs import PairLoss, pair_loss
from plaudit.lm.rloo import RLOOConfig
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows
from plaudit.models.formats.load import load_language_model
from plaudit.ops import leave_one_out_advantage
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.ops.rewards import combined
from plaudit.records.losses import Loss, Numbers, Part, cut
from plaudit.records.pairs import Pairs
from plaudit.records.types import Trajectories
from plaudit.rewards.model import BradleyTerry
from serve import Answer, serve

MAX_TOKENS = 64
"""Places in a micro-batch: few, so that every batch is cut into several."""


@dataclass(frozen=True)
class Whole:
    """A loss whose one number is its value, penalties and all."""

    loss: Loss

    @property
    def needs(self) -> Any:
        """The loss's own."""
        return self.loss.needs

    @property
    def together(self) -> bool:
        """The loss's own."""
        return self.loss.together

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The value, twice."""
        value, _ = self.loss(part)
        return value, {"loss": value.detach()}


class Ours:
    """The engine's roles over a policy, and a reference of other weights."""

    def __init__(self, task: Answer) -> None:
        self.task = task
        self.reference = LocalReference(self._backbone("reference"))
        self.actor = LocalActor(self._backbone("policy"))

    def _backbone(self, name: str) -> SharedBackbone:
        lm = load_language_model(self.task[name], template="none", dtype=torch.float64)
        layers = int(lm.model.config.num_hidden_layers)
        return SharedBackbone(lm, num_top_layers=layers, max_tokens=MAX_TOKENS)

    def logp(self) -> Answer:
        """The policy's log-probabilities of the groups' answers, [B, T]."""
        return {"logp": self.actor.logprobs(self._groups()).tolist()}

    def gradient(self, kind: str, told: Answer, out: str) -> Answer:
        """The loss and its gradient, which is written to the file `out` by the weights' names."""
        return getattr(self, f"_{kind}")(told, out)

    def _learned(
        self,
        role: Taught,
        batch: Trajectories,
        loss: Loss,
        fields: Any,
        denominator: float,
        out: str,
    ) -> Answer:
        told = role.accumulate(batch, Whole(loss), fields=fields, denominator=denominator)
        named = {
            _name(name): p.grad for name, p in role.learner.parameters.items() if p.grad is not None
        }
        save_file({name: g.contiguous() for name, g in named.items()}, out)
        norm = math.sqrt(sum(float((g**2).sum()) for g in named.values()))
        return {"loss": told["loss"], "grad_norm": norm}

    def _sft(self, told: Answer, out: str) -> Answer:
        batch = trajectories(self.task["prompts"], self.task["chosen"])
        return self._learned(self.actor, batch, CrossEntropy(), {}, int(batch.chosen.sum()), out)

    def _pairs(self) -> tuple[Trajectories, Pairs]:
        num = len(self.task["chosen"])
        answers = [*self.task["chosen"], *self.task["rejected"]]
        pairs = Pairs(tuple(range(num)), tuple(range(num, 2 * num)), (1.0,) * num)
        return trajectories(self.task["prompts"] * 2, answers), pairs

    def _reward(self, told: Answer, out: str) -> Answer:
        batch, pairs = self._pairs()
        role = LocalRewardModel(self._backbone("policy"))
        with torch.no_grad():
            role.head.weight.copy_(torch.tensor(self.task["head"])[None])
        loss = BradleyTerry(told["centring_coef"])
        return self._learned(role, batch, loss, {"pairs": pairs}, len(pairs), out)

    def _dpo(self, told: Answer, out: str) -> Answer:
        config = DPOConfig(**{k: v for k, v in told.items() if k != "delta"})
        batch, pairs = self._pairs()
        ref = self._summed(self.reference, batch)
        if "delta" in told:  # the formula at a given δ, where the loop takes the running mean
            keys = replace(config.coefficients, delta=told["delta"])
            loss = PairLoss(config.loss, keys)
        else:
            loss = pair_loss(
                config.loss, config.coefficients, self.actor, batch, pairs, ref, RunningMoments(),
                nll_coef=config.nll_coef,
            )  # fmt: skip
        return self._learned(self.actor, batch, loss, {"pairs": pairs, "ref": ref}, len(pairs), out)

    def _kto(self, told: Answer, out: str) -> Answer:
        config = KTOConfig(**told)
        good = torch.tensor(self.task["is_good"])
        answers = zip(self.task["chosen"], self.task["rejected"], good.tolist(), strict=True)
        batch = trajectories(
            self.task["prompts"], [a if is_good else b for a, b, is_good in answers]
        )
        other = mismatched(batch)
        assert other is not None
        ref = self._summed(self.reference, other)
        level = mismatched_level(config.beta, self.actor, other, ref)
        assert level > 0.0, "z is 0: these rows would not show how it is made"
        fields = {"is_good": good, "ref": self._summed(self.reference, batch)}
        found = self._learned(self.actor, batch, label_loss(config, level), fields, len(batch), out)
        return {**found, "level": level}

    def _summed(self, role: Any, batch: Trajectories) -> Tensor:
        return (role.logprobs(batch) * batch.chosen).sum(1)

    def _groups(self, logp: list[list[float]] | None = None) -> Trajectories:
        """The groups' answers; the policy drew them, unless other log-probabilities are given."""
        task = self.task
        per = len(task["answers"]) // task["num_groups"]
        prompts = [ids for ids in task["prompts"][: task["num_groups"]] for _ in range(per)]
        batch = trajectories(prompts, task["answers"])
        ended = torch.tensor([ids[-1] == task["eos"] for ids in task["answers"]])
        limit = batch.sampling.model_copy(update={"max_new_tokens": task["max_new_tokens"]})
        batch = replace(batch, terminated=ended, truncated=~ended, sampling=limit)
        old = self.actor.logprobs(batch) if logp is None else torch.tensor(logp).double()
        return replace(batch, logp=old * batch.chosen)

    def _drawn(self, batch: Trajectories, weights: list[float]) -> Drawn:
        given = torch.tensor(self.task["rewards"], dtype=torch.float64)
        scores = {str(i): given[i] for i in range(len(weights))}
        score, heard = combined(scores, weights)
        return Drawn(batch, scores, score, heard, self.task["num_groups"], 1.0)

    def _grpo(self, told: Answer, out: str) -> Answer:
        config = GRPOConfig(**told["config"])
        batch, weights = self._groups(told.get("old")), told.get("weights", [1.0])
        drawn = self._drawn(batch, weights)
        adv = advantages(config, drawn, weights).to(batch.logp)
        fields = {"adv": adv[:, None] * batch.chosen}
        if config.kl_coef:
            fields["logp_ref"] = self.reference.logprobs(batch)
        loss = Surrogate(
            config.loss,
            config.coefficients,
            kl_coef=config.kl_coef,
            entropy_coef=config.entropy_coef,
        )
        return self._surrogate(config, drawn, loss, fields, config.denominator, out)

    def _rloo(self, told: Answer, out: str) -> Answer:
        config = RLOOConfig(**told["config"])
        batch = self._groups(told.get("old"))
        drawn = self._drawn(batch, [1.0])
        score = drawn.score
        if config.kl_coef:
            distance = ((batch.logp - self.reference.logprobs(batch)) * batch.chosen).sum(1)
            score = score - config.kl_coef * distance
        values, heard = drawn.groups.spread(score, drawn.heard)
        adv = drawn.groups.back(leave_one_out_advantage(values, heard))
        loss = Surrogate("sequence", SurrogateKeys(config.clip, config.clip))
        fields = {"adv": adv[:, None] * batch.chosen}
        return self._surrogate(config, drawn, loss, fields, "answer", out)

    def _surrogate(
        self, config: RolloutKeys, drawn: Drawn, loss: Loss, fields: Any, counting: Any, out: str
    ) -> Answer:
        """As `lm.learning.learn` does for the only minibatch of a rollout."""
        rows = learned_rows(config, drawn)
        part, own = drawn.batch.select(rows), cut(fields, rows)
        own["weight"], denominator = counted(counting, part)
        return self._learned(self.actor, part, loss, own, denominator, out)


def _name(name: str) -> str:
    """A learner's name of a weight as `transformers` has it."""
    if name == "head.weight":
        return "score.weight"
    return name.removeprefix("top.").replace("base.", "model.", 1)


if __name__ == "__main__":
    serve(Ours, "torch", "transformers")
