"""The four roles of RLHF in this process, over one shared trunk.

    trunk ──┬── actor's top      + LM head      trained, generates
            ├── reference's top  + LM head      frozen
            ├── critic's top     + scalar head  trained
            └── reward's top     + scalar head  trained once, then frozen

The actor and the reference are here, with `shared.Policy` below them; critic and reward model are
in `scorers`. No role moves another: what one trains, no other holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.engine.agreement import gap, tolerance
from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.memory import give_back_memory
from plaudit.engine.scorers import LocalCritic, LocalRewardModel
from plaudit.engine.shared import Policy, SharedBackbone
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from plaudit.records.roles import PolicyLoss

ROLLOUT = "rollout"
"""The block of trunk states that belongs to the actor's latest answers."""

_CHECKED_ROWS = 4  # of the first rollout: enough for a fault of the model, and soon done
_FILTER_EDGES = 0.05  # share of tokens that rounding may put on the other side of a filter's edge


class LocalReference(Policy):
    """The frozen policy: a copy of the actor's top, and of a head that is trained."""

    def __init__(self, backbone: SharedBackbone) -> None:
        super().__init__(backbone, *backbone.copied())
        self.top.requires_grad_(False)
        if not backbone.split:
            self.head.module.requires_grad_(False)


class LocalActor(Policy):
    """The policy being taught; its top is the model's own, so the sampler sees every update."""

    def __init__(self, backbone: SharedBackbone, *, adam: AdamConfig | None = None) -> None:
        super().__init__(backbone, backbone.top, backbone.head)
        self.version = 0
        named = dict(backbone.top.named_parameters())
        if backbone.split == 0:
            known = {id(p) for p in named.values()}
            of_head = backbone.head.module.named_parameters()
            named |= {f"lm_head.{n}": p for n, p in of_head if id(p) not in known}
        self.learner = Learner(named, adam or AdamConfig())
        self._compared = False

    def generate(
        self, prompts: Sequence[Prompt], *, num_answers: int, sampling: Sampling, seed: int
    ) -> Trajectories:
        """`num_answers` answers to each prompt; the trunk's states of the latest ones are kept.

        Raises UserError where the trainer gives the first answers another log-probability than
        they were drawn with.
        """
        drawn = self.backbone.sampler.generate(
            [prompt.ids for prompt in prompts],
            num_answers=num_answers,
            sampling=sampling,
            seed=seed,
        )
        # half a gigabyte for a 135M model, remade in a fraction of a second
        self.backbone.sampler.release()
        give_back_memory()
        codec = self.backbone.lm.codec
        rows = zip(drawn.answer.tolist(), drawn.mask.sum(1).tolist(), strict=True)
        batch = Trajectories(
            prompts=tuple(prompts),
            group=torch.arange(len(prompts)).repeat_interleave(num_answers),
            answer=drawn.answer,
            mask=drawn.mask,
            logp=drawn.logp,
            terminated=drawn.terminated,
            texts=tuple(codec.decode(ids[:n]) for ids, n in rows),
            sampling=sampling,
            version=self.version,
        )
        if drawn.prompt_hidden is not None and drawn.answer_hidden is not None:
            self.backbone.states.put(ROLLOUT, batch, drawn.prompt_hidden, drawn.answer_hidden)
        if not self._compared:
            self._compare(batch)
        return batch

    def _compare(self, batch: Trajectories) -> None:
        """Refuse to go on where sampler and trainer part on some of the first answers."""
        stride = max(len(batch) // _CHECKED_ROWS, 1)
        some = batch.select(range(0, len(batch), stride)[:_CHECKED_ROWS])
        close = tolerance(self.backbone.dtype)
        found, mask = self.logprobs(some), some.mask
        apart = gap(found, some.logp, mask)
        if some.sampling.top_k or some.sampling.top_p < 1:
            far = (found - some.logp).abs()[mask] > close * some.logp.abs()[mask].clamp(min=1)
            apart = apart if float(far.double().mean()) > _FILTER_EDGES else 0.0
        if apart > close:
            raise UserError(
                f"the answers of {type(self.backbone.lm.model).__name__} were drawn with other "
                f"log-probabilities than training gives them, by {apart:.2g} nats a token or that "
                "share of them: it cannot be taught exactly, so use another model"
            )
        self._compared = True

    def update(self, batch: Trajectories, loss: PolicyLoss, *, lr: float) -> Mapping[str, float]:
        """One step on the sum of `loss(rows, logp [b, T], entropy [b, T])` over micro-batches."""
        self.learner.zero_grad()
        for layout in self.backbone.layouts(batch):
            logp, entropy = self.token_stats(layout, batch)
            torch.autograd.backward(loss(list(layout.rows), logp, entropy))
        grad_norm = self.learner.step(lr=lr)
        self.version += 1
        return {"grad_norm": grad_norm}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and moments, and the version."""
        arrays, _ = self.learner.state()
        return arrays, {"version": self.version}

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.learner.restore(arrays, facts)
        self.version = int(facts["version"])


__all__ = [
    "ROLLOUT",
    "LocalActor",
    "LocalCritic",
    "LocalReference",
    "LocalRewardModel",
    "SharedBackbone",
]
