"""Whether three ways to one number agree: the trainer's, the sampler's, and the model's own.

A few random tokens, long enough to pass a sliding window where the job's texts can, go through the
model alone (one conversation at a time, nothing padded, nothing packed), through the trainer's rows
and through the sampler's steps. A model on which they part by more than `TOLERANCE` would be taught
from wrong numbers, whatever its family: it is refused before anything begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from plaudit.models.formats.load import LanguageModel

TOLERANCE = 1e-4
"""Nats a token, or that share of the log-probability where that is more than a nat."""

_COARSE = 0.05  # of weights in 16 bits, whose rounding is 2**-8
_SHORT, _ANSWERS = 24, (13, 8)
_LOOKED_PAST = 512
"""A window up to this size is looked past although nobody said how long the texts are."""


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of one log-probability may be apart in this precision."""
    return TOLERANCE if dtype in (torch.float32, torch.float64) else _COARSE


def probe_batch(lm: LanguageModel, *, longest: int | None = None) -> Trajectories:
    """Two prompts with two answers each, of random tokens.

    `longest` is the length of the job's longest conversation: a window that it passes is passed.
    """
    context = lm.codec.context
    windows = [w for w in _windows(lm.model.config) if w < (longest or _LOOKED_PAST)]
    size = max([_SHORT, *(w + 8 for w in windows)])
    size = max(min(size, context), 4)
    long = min(_ANSWERS[0], size - 1)
    counts = [long, min(_ANSWERS[1], long), min(9, size // 2), min(4, size // 2)]
    generator = torch.Generator().manual_seed(0)
    vocabulary = min(len(lm.codec.tokenizer), lm.model.get_input_embeddings().weight.shape[0])

    def some(n: int) -> list[int]:
        ids: list[int] = torch.randint(vocabulary, (n,), generator=generator).tolist()
        return ids

    prompts = tuple(Prompt("", tuple(some(n))) for n in (size - long, min(6, size // 2)))
    answer = torch.full((4, max(counts)), lm.codec.pad_id)
    mask = torch.zeros(answer.shape, dtype=torch.bool)
    for row, n in enumerate(counts):
        answer[row, :n] = torch.tensor(some(n))
        mask[row, :n] = True
    return Trajectories.of_answers(
        prompts=prompts,
        group=torch.tensor([0, 0, 1, 1]),
        token=answer,
        mask=mask,
        logp=torch.zeros(answer.shape),
        terminated=torch.ones(4, dtype=torch.bool),
        texts=("",) * 4,
        sampling=Sampling(max_new_tokens=max(counts)),
    )


def _windows(config: Any) -> list[int]:
    """Every length in the config beyond which a token sees less, or is placed otherwise."""
    names = ("window", "chunk_size", "local_attention", "original_max_position")
    rope = getattr(config, "rope_parameters", None)
    found = [*vars(config).items(), *(rope.items() if isinstance(rope, dict) else ())]
    return [
        v for k, v in found if any(n in k for n in names) and isinstance(v, int) and 1 < v < 2**31
    ]


@torch.no_grad()
def plain_logprobs(model: Any, batch: Trajectories) -> Tensor:
    """Log-probabilities [B, T] by the model alone, one conversation at a time."""
    out = torch.zeros(batch.there.shape, dtype=torch.float64)
    for row in range(len(batch)):
        prompt = batch.prompts[int(batch.group[row])].ids
        ids = batch.token[row][batch.there[row]]
        whole = torch.tensor([[*prompt, *ids.tolist()]], device=model.device)
        logits = model(input_ids=whole, use_cache=False).logits[0, len(prompt) - 1 : -1]
        each = logits.double().cpu().log_softmax(-1).gather(1, ids.cpu()[:, None])
        out[row, : len(ids)] = each[:, 0]
    return out


@torch.no_grad()
def stepped_logprobs(decoder: Any, batch: Trajectories) -> Tensor:
    """Log-probabilities [B, T] as the sampler's decoder makes them, a token at a time."""
    num_steps = batch.there.shape[1]
    group: list[int] = batch.group.tolist()
    decoder.refresh()
    prefix = decoder.prefill([prompt.ids for prompt in batch.prompts])
    answers = decoder.start(prefix, group, num_steps)
    logits = prefix.logits[torch.tensor(group, device=prefix.logits.device)]
    token = batch.token.to(logits.device)
    steps = []
    for t in range(num_steps):
        each = logits.double().log_softmax(-1).gather(1, token[:, t, None])
        steps.append(each[:, 0])
        if t + 1 < num_steps:
            logits, _ = answers.step(token[:, t])
    return torch.stack(steps, dim=1).cpu() * batch.there.cpu()


def gap(found: Tensor, wanted: Tensor, mask: Tensor) -> float:
    """The largest difference over the mask, in nats or as a share where there is more than one;
    infinite where a number is not finite."""
    a, b = found.double().cpu()[mask.cpu()], wanted.double().cpu()[mask.cpu()]
    apart = (a - b).abs() / b.abs().clamp(min=1.0)
    return float(apart.nan_to_num(nan=float("inf")).max()) if len(apart) else 0.0
