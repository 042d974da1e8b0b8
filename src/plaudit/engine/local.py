"""The four roles of RLHF in this process, over one shared trunk.

    trunk ──┬── actor's top      + LM head      trained, generates
            ├── reference's top  + LM head      frozen
            ├── critic's top     + scalar head  trained
            └── reward's top     + scalar head  trained once, then frozen

The trunk's hidden states of a rollout are computed once: the sampler keeps them as it generates,
and every role and every epoch reads them. Trained in all its layers (`split` 0) a model has no
trunk, and each role runs the whole decoder. Batches are cut into micro-batches by their tokens;
since losses carry their denominators, the cut changes nothing but memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.memory import give_back_memory, keep_freed_memory
from plaudit.models.backbone import (
    Decoder,
    ScalarHead,
    check_split,
    copy_top,
    gather_places,
    num_layers,
    top_of,
    trunk_of,
)
from plaudit.models.layout import Layout, micro_layouts, place_hidden
from plaudit.models.probe_start import (
    can_start_from_probe,
    last_hidden,
    mean_token,
    write_probe,
)
from plaudit.models.sampler import Sampler
from plaudit.ops import token_logprobs
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from plaudit.models.load import LanguageModel
    from plaudit.records.roles import PolicyLoss, ValueLoss

MAX_TOKENS = 896
"""Places in a micro-batch: about 0.3 GB of activations for six layers of a 135M model."""


class SharedBackbone:
    """A language model cut at `split`, and the numbers that its roles share."""

    def __init__(
        self, lm: LanguageModel, *, num_top_layers: int, max_tokens: int = MAX_TOKENS
    ) -> None:
        total = num_layers(lm.model)
        if not 1 <= num_top_layers <= total:
            raise UserError(
                f"num_top_layers is {num_top_layers}, but this model has {total} layers: "
                f"give a number from 1 to {total}"
            )
        keep_freed_memory()
        self.lm = lm
        self.split = total - num_top_layers
        check_split(lm.model, self.split)
        self.max_tokens = max_tokens
        self.pad_id = lm.codec.pad_id
        self.width = int(lm.model.config.hidden_size)
        self.trunk: Decoder | None = trunk_of(lm.model, self.split) if self.split else None
        self.top = top_of(lm.model, self.split)
        # A head tied to a frozen embedding stays frozen; with every layer trained it is trained.
        lm.model.requires_grad_(self.split == 0)
        self.top.requires_grad_(True)
        head: Any = lm.model.get_output_embeddings()
        self.head_weight: Tensor = head.weight
        self.head_bias: Tensor | None = getattr(head, "bias", None)

    def inputs(self, layout: Layout, batch: Trajectories) -> Tensor:
        """What a top takes: token ids, or the trunk's hidden states (kept ones if there are)."""
        if self.trunk is None:
            return layout.token
        kept = place_hidden(layout, batch)
        if kept is not None:
            return kept
        with torch.no_grad():
            hidden: Tensor = self.trunk(layout.token, layout)
        return hidden

    def layouts(self, batch: Trajectories) -> Iterator[Layout]:
        return micro_layouts(batch, pad_id=self.pad_id, max_tokens=self.max_tokens)

    def keep_hidden(self, batch: Trajectories) -> Trajectories:
        """The batch with the trunk's hidden states attached: for data that is read many times."""
        if self.trunk is None or batch.answer_hidden is not None:
            return batch
        num_prompt = max(len(prompt.ids) for prompt in batch.prompts)
        shape = (self.width,)
        dtype = self.lm.model.dtype
        of_prompt = torch.zeros((len(batch.prompts), num_prompt, *shape), dtype=dtype)
        of_answer = torch.zeros((*batch.answer.shape, *shape), dtype=dtype)
        for layout in self.layouts(batch):
            hidden = self.inputs(layout, batch)
            for r, (g, n) in enumerate(zip(layout.groups, layout.prompt_lengths, strict=True)):
                of_prompt[g, :n] = hidden[r, :n]
            answers = gather_places(hidden, layout.own) * layout.mask[..., None]
            of_answer[list(layout.rows), : answers.shape[1]] = answers
        return replace(batch, prompt_hidden=of_prompt, answer_hidden=of_answer)


class Policy:
    """A top with the LM head: log-probabilities of drawn tokens under `sampling`."""

    def __init__(self, backbone: SharedBackbone, top: Decoder, sampling: Sampling) -> None:
        self.backbone = backbone
        self.top = top
        self.sampling = sampling

    def token_stats(self, layout: Layout, batch: Trajectories) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy for each answer token of the layout: [b, T] each, T of the
        batch, 0 off the mask. The LM head is applied to the places that count and no others."""
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        logp, entropy = token_logprobs(
            gather_places(hidden, layout.before[layout.mask]),
            self.backbone.head_weight,
            layout.answer[layout.mask],
            bias=self.backbone.head_bias,
            temperature=self.sampling.temperature or 1.0,
            top_k=self.sampling.top_k,
            top_p=self.sampling.top_p,
        )
        shape = (len(layout.rows), batch.mask.shape[1])
        return spread(logp, layout, shape), spread(entropy, layout, shape)

    @torch.no_grad()
    def logprobs(self, batch: Trajectories) -> Tensor:
        out = torch.zeros(batch.mask.shape, dtype=self.backbone.lm.model.dtype)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.token_stats(layout, batch)[0]
        return out


def spread(x: Tensor, layout: Layout, shape: tuple[int, int]) -> Tensor:
    """Values of the masked answer tokens [n] at their places in [b, T]; 0 elsewhere."""
    mask = torch.zeros(shape, dtype=torch.bool, device=x.device)
    mask[:, : layout.mask.shape[1]] = layout.mask
    return x.new_zeros(shape).masked_scatter(mask, x)


class LocalReference(Policy):
    """The frozen policy: a copy of the actor's top made before training."""

    def __init__(self, backbone: SharedBackbone, sampling: Sampling) -> None:
        super().__init__(backbone, copy_top(backbone.top).requires_grad_(False), sampling)


class LocalActor(Policy):
    """The policy being taught; its top is the model's own, so the sampler sees every update."""

    def __init__(
        self, backbone: SharedBackbone, sampling: Sampling, *, adam: AdamConfig | None = None
    ) -> None:
        super().__init__(backbone, backbone.top, sampling)
        self.version = 0
        named = dict(backbone.top.named_parameters())
        if backbone.split == 0 and not backbone.lm.model.config.tie_word_embeddings:
            named["lm_head.weight"] = backbone.head_weight  # type: ignore[assignment]
        self.learner = Learner(named, adam or AdamConfig())
        codec = backbone.lm.codec
        self.sampler = Sampler(
            backbone.lm.model,
            stop_ids=codec.stop_ids,
            pad_id=codec.pad_id,
            split=backbone.split or None,
        )

    def generate(self, prompts: Sequence[Prompt], *, num_answers: int, seed: int) -> Trajectories:
        drawn = self.sampler.generate(
            [prompt.ids for prompt in prompts],
            num_answers=num_answers,
            sampling=self.sampling,
            seed=seed,
        )
        self.sampler.release()  # half a gigabyte for a 135M model, remade in a fraction of a second
        give_back_memory()
        codec = self.backbone.lm.codec
        rows = zip(drawn.answer.tolist(), drawn.mask.sum(1).tolist(), strict=True)
        return Trajectories(
            prompts=tuple(prompts),
            group=torch.arange(len(prompts)).repeat_interleave(num_answers),
            answer=drawn.answer,
            mask=drawn.mask,
            logp=drawn.logp,
            terminated=drawn.terminated,
            texts=tuple(codec.decode(ids[:n]) for ids, n in rows),
            prompt_hidden=drawn.prompt_hidden,
            answer_hidden=drawn.answer_hidden,
            version=self.version,
        )

    def update(self, batch: Trajectories, loss: PolicyLoss, *, lr: float) -> Mapping[str, float]:
        self.learner.zero_grad()
        for layout in self.backbone.layouts(batch):
            logp, entropy = self.token_stats(layout, batch)
            torch.autograd.backward(loss(list(layout.rows), logp, entropy))
        grad_norm = self.learner.step(lr=lr)
        self.version += 1
        return {"grad_norm": grad_norm}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        arrays, _ = self.learner.state()
        return arrays, {"version": self.version}

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.learner.restore(arrays, facts)
        self.version = int(facts["version"])


class Scorer:
    """A top of its own with a scalar head: what a reward model and a critic both are."""

    has_bias = False

    def __init__(
        self,
        backbone: SharedBackbone,
        *,
        top: Decoder | None = None,
        adam: AdamConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.top = copy_top(top or backbone.top).requires_grad_(True)
        self.head = ScalarHead(backbone.width, bias=self.has_bias, dtype=backbone.lm.model.dtype)
        named = {f"top.{name}": p for name, p in self.top.named_parameters()}
        named |= {f"head.{name}": p for name, p in self.head.named_parameters()}
        self.learner = Learner(named, adam or AdamConfig())

    def freeze(self) -> None:
        """No more training: gradients and moments, three times the weights, are given back."""
        self.learner.zero_grad()
        self.learner.optimiser.state.clear()
        self.top.requires_grad_(False)
        self.head.requires_grad_(False)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.learner.state()

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.learner.restore(arrays, facts)


class LocalRewardModel(Scorer):
    """One score for an answer, read at its last real token."""

    def layout_scores(self, layout: Layout, batch: Trajectories) -> Tensor:
        """Scores [b] of the layout's answers."""
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        scores: Tensor = self.head(gather_places(hidden, layout.last))
        return scores

    @torch.no_grad()
    def __call__(self, batch: Trajectories) -> Tensor:
        out = torch.zeros(len(batch), dtype=self.backbone.lm.model.dtype)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.layout_scores(layout, batch)
        return out

    @torch.no_grad()
    def mean_tokens(self, batch: Trajectories) -> Tensor | None:
        """What a linear probe sees of each answer, [B, H]; None where no probe can be written."""
        if self.backbone.trunk is None or not can_start_from_probe(self.top):
            return None
        return self._gathered(batch, lambda hidden, layout: mean_token(self.top, hidden, layout))

    @torch.no_grad()
    def start_from_probe(self, weight: Tensor, batch: Trajectories) -> None:
        """Begin as the probe `weight` [H] on `mean_tokens(batch)`."""
        mean = self.mean_tokens(batch)
        assert mean is not None, "mean_tokens says whether a probe can be written"
        last = self._gathered(batch, last_hidden)
        write_probe(self.top, self.head, weight.to(mean.dtype), mean=mean, last=last)

    def _gathered(self, batch: Trajectories, read: Callable[[Tensor, Layout], Tensor]) -> Tensor:
        """`read(trunk states, layout)` [b, H] of every layout, in the batch's order: [B, H]."""
        out = torch.zeros((len(batch), self.backbone.width), dtype=self.backbone.lm.model.dtype)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = read(self.backbone.inputs(layout, batch), layout)
        return out

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        """One step on `loss(rows, scores [b])`; answers to one prompt stay in one micro-batch."""
        self.learner.zero_grad()
        for layout in self.backbone.layouts(batch):
            torch.autograd.backward(loss(list(layout.rows), self.layout_scores(layout, batch)))
        return {"grad_norm": self.learner.step(lr=lr)}


class LocalCritic(Scorer):
    """The value of the state before each token, read where that token is predicted."""

    has_bias = True

    @classmethod
    def from_reward_model(
        cls,
        reward: LocalRewardModel,
        *,
        scale: float = 1.0,
        shift: float = 0.0,
        adam: AdamConfig | None = None,
    ) -> LocalCritic:
        """Starts as the reward model: V = scale · (score − shift) (Huang et al. 2024, detail 11)."""
        critic = cls(reward.backbone, top=reward.top, adam=adam)
        with torch.no_grad():
            critic.head.weight.copy_(reward.head.weight * scale)
            assert critic.head.bias is not None
            critic.head.bias.fill_(-shift * scale)
        return critic

    def layout_values(self, layout: Layout, batch: Trajectories) -> Tensor:
        """Values [b, T], T of the batch, 0 off the mask."""
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        value = self.head(gather_places(hidden, layout.before[layout.mask]))
        return spread(value, layout, (len(layout.rows), batch.mask.shape[1]))

    @torch.no_grad()
    def values(self, batch: Trajectories) -> Tensor:
        out = torch.zeros(batch.mask.shape, dtype=self.backbone.lm.model.dtype)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.layout_values(layout, batch)
        return out

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        self.learner.zero_grad()
        for layout in self.backbone.layouts(batch):
            torch.autograd.backward(loss(list(layout.rows), self.layout_values(layout, batch)))
        return {"grad_norm": self.learner.step(lr=lr)}
