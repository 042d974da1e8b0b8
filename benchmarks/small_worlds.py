"""Language models of a few thousand weights, made from scratch, and tasks that they can learn.

Characters are tokens; an answer is right or wrong by a rule. Shared by `addition` and `algorithms`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone
from plaudit.models.answers import given_answers
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

END = "."


def language_model(
    characters: str, *, width: int, layers: int, context: int, seed: int
) -> LanguageModel:
    """A Llama with random weights over these characters and an end."""
    torch.manual_seed(seed)
    vocabulary = {c: i for i, c in enumerate([END, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with tempfile.TemporaryDirectory() as name:
        LlamaForCausalLM(config).save_pretrained(name)
        fast.save_pretrained(name)
        return load_language_model(Path(name), template="none")


def whole_actor(lm: LanguageModel) -> tuple[SharedBackbone, LocalActor]:
    """Every layer is taught."""
    backbone = SharedBackbone(lm, num_top_layers=int(lm.model.config.num_hidden_layers))
    return backbone, LocalActor(backbone)


def examples(lm: LanguageModel, rows: Sequence[tuple[str, str]]) -> Trajectories:
    """Prompts with the answers to be learned, ended."""
    made = []
    for asked, said in rows:
        prompt = lm.codec.prompt(asked)
        made.append((prompt, lm.codec.completion_ids(prompt, said)))
    return given_answers(made, pad_id=lm.codec.pad_id)


class RuleJudge:
    """A rule of prompt and answer as a judge, which abstains from a share of the answers."""

    names, weights = ("right",), (1.0,)

    def __init__(self, rule: Callable[[str, str], float], *, abstain: float = 0.0) -> None:
        self.rule, self.abstain = rule, abstain
        self._rng = np.random.default_rng(0)

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        asked = [batch.prompts[g].text for g in batch.group.tolist()]
        pairs = zip(asked, batch.texts, strict=True)
        score = torch.tensor([self.rule(p, text) for p, text in pairs], dtype=torch.float64)
        silent = torch.from_numpy(self._rng.random(len(score)) < self.abstain)
        return {"right": score.masked_fill(silent, torch.nan)}


def accuracy(
    actor: LocalActor,
    prompts: Sequence[Prompt],
    rule: Callable[[str, str], float],
    sampling: Sampling,
    *,
    answers: int = 4,
    seed: int = 12345,
) -> float:
    """Mean score of sampled answers."""
    batch = actor.generate(prompts, num_answers=answers, sampling=sampling, seed=seed)
    asked = [batch.prompts[g].text for g in batch.group.tolist()]
    return float(np.mean([rule(p, text) for p, text in zip(asked, batch.texts, strict=True)]))
