"""The numbers of a job by `transformers` and torch alone: one forward for each text, nothing shared.

Each answer is read after its prompt in a row of its own, without padding, cache or packing, by the
model's own class. Nothing of ours is imported, so whatever these say a user can say too. Filters
are applied to sorted probabilities, in float64.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Ids = Sequence[int]


@dataclass(frozen=True)
class Drawing:
    """How answers were drawn: logits / temperature, then top-k, then min-p, then top-p."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


PLAIN = Drawing()


class Remembered:
    """A model that reads each text once: for one whose weights do not change while it is asked."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.read: dict[tuple[int, ...], Any] = {}

    def __call__(self, *, input_ids: Tensor, use_cache: bool) -> Any:
        key = tuple(input_ids[0].tolist())
        if key not in self.read:
            self.read[key] = self.model(input_ids=input_ids, use_cache=use_cache)
        return self.read[key]


def open_causal(folder: str | Path, **settings: Any) -> Any:
    """The folder's language model, as its user opens it; `settings` go to `from_pretrained`."""
    from transformers import AutoModelForCausalLM

    return _opened(AutoModelForCausalLM, folder, **settings)


def open_classifier(folder: str | Path) -> Any:
    """The folder's sequence classifier, as its user opens it; where transformers has none of the
    kind, the decoder and the head that score.safetensors holds."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    if not (Path(folder) / "score.safetensors").is_file():
        return _opened(AutoModelForSequenceClassification, folder)
    return DecoderAndHead(_opened(AutoModel, folder), load_file(Path(folder) / "score.safetensors"))


class DecoderAndHead:
    """w · h of the last real token, by the attention mask; called as a classifier is."""

    def __init__(self, decoder: Any, head: dict[str, Tensor]) -> None:
        self.decoder = decoder
        self.weight = head["weight"]
        self.config = decoder.config
        self.forward = decoder.forward

    def __call__(
        self, *, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.decoder(input_ids=input_ids, attention_mask=mask, **others).last_hidden_state
        place = torch.arange(input_ids.shape[1])
        last = (place * mask).argmax(1)  # the furthest real place
        score = hidden[torch.arange(len(last)), last] @ self.weight.T
        return SimpleNamespace(logits=score)


def open_tokenizer(folder: str | Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _opened(kind: Any, folder: str | Path, **settings: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.from_pretrained(folder, dtype=torch.float32, **settings).eval()


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """A user's turn by the folder's own chat template."""
    turns = [{"role": "user", "content": text}]
    written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(written, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def answer_logits(model: Any, prompt: Ids, answer: Ids) -> Tensor:
    """Logits [T, V], float64, of the places that predict the answer's T tokens."""
    return _logits(model, prompt, answer)


def _logits(model: Any, prompt: Ids, answer: Ids) -> Tensor:
    ids = torch.tensor([[*prompt, *answer]])
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].double()


def kept_tokens(logits: Tensor, drawing: Drawing) -> Tensor:
    """True [T, V] on the tokens that can be drawn from logits [T, V] after the temperature."""
    kept = torch.ones_like(logits, dtype=torch.bool)
    if drawing.top_k == drawing.min_p == 0 and drawing.top_p == 1.0:
        return kept
    for t, row in enumerate(logits / (drawing.temperature or 1.0)):
        order = row.argsort(descending=True)
        if drawing.top_k:
            least = row[order[min(drawing.top_k, len(order)) - 1]]
            order = order[row[order] >= least]
        mass = row[order].softmax(0)
        order = order[mass >= drawing.min_p * mass[0]]
        mass = row[order].softmax(0)
        before = mass.cumsum(0) - mass  # what the more likely tokens hold already
        kept[t] = False
        kept[t, order[before < drawing.top_p]] = True
    return kept


def log_distribution(logits: Tensor, drawing: Drawing, answer: Ids) -> Tensor:
    """log π [T, V] of the distribution drawn from; the answer's own tokens always count as kept."""
    kept = kept_tokens(logits, drawing)
    kept[torch.arange(len(answer)), torch.tensor(answer, dtype=torch.long)] = True
    scaled = logits / (drawing.temperature or 1.0)
    return scaled.masked_fill(~kept, float("-inf")).log_softmax(-1)


def answer_logprobs(model: Any, prompt: Ids, answer: Ids, drawing: Drawing = PLAIN) -> Tensor:
    """Log-probabilities [T] of the answer's tokens."""
    logp = log_distribution(answer_logits(model, prompt, answer), drawing, answer)
    return logp[torch.arange(len(answer)), torch.tensor(answer, dtype=torch.long)]


def gradients(
    model: Any,
    texts: Sequence[tuple[Ids, Ids]],
    weights: Sequence[Tensor],
    drawing: Drawing = PLAIN,
) -> dict[str, Tensor]:
    """d/dθ of Σ weight·log π over all tokens of all answers, by the names of the model's tensors."""
    model.zero_grad()
    for (prompt, answer), weight in zip(texts, weights, strict=True):
        logp = log_distribution(_logits(model, prompt, answer), drawing, answer)
        drawn = logp[torch.arange(len(answer)), torch.tensor(answer, dtype=torch.long)]
        (drawn * weight).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def answer_entropy(model: Any, prompt: Ids, answer: Ids, drawing: Drawing = PLAIN) -> Tensor:
    """Entropy [T], nats, of the distribution before each of the answer's tokens."""
    logp = log_distribution(answer_logits(model, prompt, answer), drawing, answer)
    return -(logp.exp() * logp.clamp(min=-1e30)).sum(-1)


def sampled_kl(
    policy: Any, start: Any, texts: Sequence[tuple[Ids, Ids]], drawing: Drawing = PLAIN
) -> float:
    """Mean over texts of Σ_t log π(a_t) − log π₀(a_t): what KL(π‖π₀) is estimated by."""
    each = [
        float(
            (answer_logprobs(policy, *text, drawing) - answer_logprobs(start, *text, drawing)).sum()
        )
        for text in texts
    ]
    return sum(each) / len(each)


def perplexity(model: Any, texts: Sequence[tuple[Ids, Ids]]) -> float:
    """exp of the mean −log p over all tokens of all answers, at temperature 1."""
    logp = torch.cat([answer_logprobs(model, *text) for text in texts])
    return float((-logp.mean()).exp())


@torch.no_grad()
def scores_alone(scorer: Any, texts: Sequence[tuple[Ids, Ids]]) -> Tensor:
    """The classifier's score of each text [B], one unpadded row at a time."""
    rows = [torch.tensor([[*prompt, *answer]]) for prompt, answer in texts]
    return torch.cat([scorer(input_ids=row, use_cache=False).logits[:, 0] for row in rows]).double()


@torch.no_grad()
def scores_padded(
    scorer: Any, tokenizer: Any, texts: Sequence[tuple[Ids, Ids]], side: str
) -> Tensor:
    """The classifier's scores [B] of all texts as one batch, padded at `side` by the tokenizer.

    Positions count real tokens, as `generate` counts them, where the model can be told.
    """
    rows = [[*prompt, *answer] for prompt, answer in texts]
    batch = tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
    mask, told = batch["attention_mask"], {}
    if "position_ids" in inspect.signature(scorer.forward).parameters:
        told["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    out = scorer(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False, **told)
    logits: Tensor = out.logits
    return logits[:, 0].double()
