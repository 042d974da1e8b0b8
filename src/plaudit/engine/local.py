"""The four roles of RLHF in this process, over one shared trunk.

    trunk ──┬── actor's top      + LM head      trained, generates
            ├── reference's top  + LM head      frozen
            ├── critic's top     + scalar head  trained
            └── reward's top     + scalar head  trained once, then frozen

The actor and the reference are here, with `shared.Policy` below them; critic and reward model are
in `scorers`. No role moves another: what one trains, no other holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from plaudit.engine.agreement import gap, tolerance
from plaudit.engine.conversations import converse
from plaudit.engine.learner import AdamConfig
from plaudit.engine.memory import give_back_memory
from plaudit.engine.role import Taught
from plaudit.engine.scorers import LocalCritic, LocalRewardModel
from plaudit.engine.shared import Policy, SharedBackbone
from plaudit.engine.tops import LoRA, taught
from plaudit.models.adapter import save_adapter
from plaudit.models.answers import texts_of
from plaudit.models.formats.save import save_language_model
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Replier, Trajectories

ROLLOUT = "rollout"
"""The block of trunk states that belongs to the actor's latest answers."""

_CHECKED_ROWS = 4  # of the first rollout: enough for a fault of the model, and soon done
_ROUGH = 0.25  # nats a token: two to four times what rounding costs a model that bears it
_FILTER_EDGES = 0.05  # share of tokens that rounding may put on the other side of a filter's edge


class LocalReference(Policy):
    """The frozen policy: a copy of the actor's top, and of a head that is trained."""

    def __init__(self, backbone: SharedBackbone) -> None:
        super().__init__(backbone, *backbone.copied())
        self.top.requires_grad_(False)
        if not backbone.split:
            self.head.module.requires_grad_(False)


class LocalActor(Taught, Policy):
    """The policy being taught; its plain top is the model's own, so the sampler sees every update.

    With `lora` its top learns adapters relative to the weights as they are now, and its head stays.
    """

    def __init__(
        self,
        backbone: SharedBackbone,
        *,
        adam: AdamConfig | None = None,
        lora: LoRA | None = None,
    ) -> None:
        trained = taught(backbone.top, lora)
        super().__init__(backbone, trained.forward, backbone.head)
        named = trained.parameters()
        if lora is not None:
            backbone.head.module.requires_grad_(False)
        elif backbone.split == 0:
            known = {id(p) for p in named.values()}
            of_head = backbone.head.module.named_parameters()
            named |= {f"lm_head.{n}": p for n, p in of_head if id(p) not in known}
        self.teach(trained, named, adam)
        self._compared = False

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_answers: int,
        sampling: Sampling,
        seed: int,
        replier: Replier | None = None,
    ) -> Trajectories:
        """`num_answers` answers to each prompt; the trunk's states of the latest ones are kept.

        With a `replier` they go on as conversations (`engine.conversations`). Raises UserError where the trainer gives the first answers another log-probability than
        they were drawn with.
        """
        self.learner.zero_grad()  # as large as the weights that learn, and of no use any more
        give_back_memory()  # that updates have left: drawing needs arrays of other sizes
        if replier is not None:
            batch = converse(
                self.backbone,
                prompts,
                num_answers=num_answers,
                sampling=sampling,
                seed=seed,
                replier=replier,
                version=self.version,
            )
            self._compare(batch)
            return batch
        drawn = self.backbone.sampler.generate(
            [prompt.ids for prompt in prompts],
            num_answers=num_answers,
            sampling=sampling,
            seed=seed,
        )
        # half a gigabyte for a 135M model, remade in a fraction of a second
        self.backbone.sampler.release()
        give_back_memory()
        group = torch.arange(len(prompts), device=self.device).repeat_interleave(num_answers)
        batch = Trajectories.of_answers(
            prompts=prompts,
            group=group,
            token=drawn.answer,
            mask=drawn.mask,
            logp=drawn.logp,
            terminated=drawn.terminated,
            texts=texts_of(drawn.answer, drawn.mask, drawn.mask, self.backbone.lm.codec),
            sampling=sampling,
            version=self.version,
        )
        if self.backbone.draws_rounded:
            self.backbone.states.drop(ROLLOUT)
            self.backbone.remember(ROLLOUT, batch)
        if drawn.prompt_hidden is not None and drawn.answer_hidden is not None:
            self.backbone.states.put(ROLLOUT, batch, drawn.prompt_hidden, drawn.answer_hidden)
        self._compare(batch)
        return batch

    def _compare(self, batch: Trajectories) -> None:
        """Refuse to go on where sampler and trainer part on some of the first answers."""
        if self._compared:
            return
        stride = max(len(batch) // _CHECKED_ROWS, 1)
        some = batch.select(range(0, len(batch), stride)[:_CHECKED_ROWS])
        close = tolerance(self.backbone.dtype)
        found, mask = self.logprobs(some), some.chosen
        if self.backbone.draws_rounded:
            _check_rounding(float((found - some.logp)[mask].abs().mean()))
            self._compared = True
            return
        apart = gap(found, some.logp, mask)
        if some.sampling.filters:
            far = (found - some.logp).abs()[mask] > close * some.logp.abs()[mask].clamp(min=1)
            apart = apart if float(far.double().mean()) > _FILTER_EDGES else 0.0
        if apart > close:
            raise UserError(
                f"the answers of {type(self.backbone.lm.model).__name__} were drawn with other "
                f"log-probabilities than training gives them, by {apart:.2g} nats a token or that "
                "share of them: it cannot be taught exactly, so use another model"
            )
        self._compared = True

    def sync(self, version: int) -> None:
        """Nothing to do: here the weights that are taught are those that draw.

        Raises ValueError for another version than that of the weights.
        """
        if version != self.version:
            raise ValueError(f"version {version} is asked for, but the weights are {self.version}")

    def save(self, folder: str | Path) -> None:
        """Write the whole policy, adapters merged, as `transformers` loads it."""
        lm = self.backbone.lm
        save_language_model(folder, lm.model, lm.codec)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapters as peft does, relative to the model as it was read; ValueError where
        the whole top is taught."""
        rank = self.trained.rank
        if not rank:
            raise ValueError("this actor is taught whole: it has no adapters to write")
        split = self.backbone.split
        save_adapter(folder, self.backbone.lm, self.top, split=split, rank=rank)


def _check_rounding(apart: float) -> None:
    """UserError where bytes give another policy than the model's."""
    if not apart <= _ROUGH:
        raise UserError(
            f"products of bytes change this model's log-probabilities by {apart:.2g} nats a token: "
            "use sampler_precision float32"
        )


__all__ = [
    "ROLLOUT",
    "LocalActor",
    "LocalCritic",
    "LocalReference",
    "LocalRewardModel",
    "SharedBackbone",
]
