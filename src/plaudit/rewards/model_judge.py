"""A saved reward model as a judge: its score of each answer behind its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.models.classifier import load_classifier
from plaudit.ops import last_step
from plaudit.records.errors import UserError
from plaudit.records.types import Trajectories

MOST_TOKENS = 8192
"""In one pass, padding included: enough to fill a device, and small beside the weights."""


class ModelJudge:
    """One measure: the score that the reward model in a folder gives each answer.

    It reads the token ids of prompt and answer up to the last chosen token, as the model was taught
    (`engine.scorers.LocalRewardModel`), so its tokenizer must be the policy's: `check_tokenizer`.
    """

    def __init__(
        self, folder: str | Path, device: torch.device | str = "cpu", *, name: str | None = None
    ) -> None:
        """UserError for a folder that holds no reward model."""
        read = load_classifier(folder)
        self.folder = Path(folder)
        self._classifier = replace(
            read, decoder=read.decoder.to(device), weight=read.weight.to(device)
        )
        self.names: tuple[str, ...] = (name or self.folder.resolve().name,)
        self.weights = (1.0,)

    def renamed(self, name: str) -> ModelJudge:
        """The same, called `name`."""
        self.names = (name,)
        return self

    def check_tokenizer(self, tokenizer: Any) -> None:
        """UserError unless every token of the policy's tokenizer is the same token here."""
        own = self._classifier.tokenizer.get_vocab()
        for token, number in tokenizer.get_vocab().items():
            if own.get(token) != number:
                raise UserError(
                    f"the reward model in {self.folder} reads other tokens than the policy writes "
                    f"({token!r} is token {number} of the policy, {own.get(token)} of the reward "
                    "model): use one that was learned from the same model"
                )

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """See `records.roles.Judge`; UserError where a score is not finite."""
        ids = _conversations(batch)
        scores = torch.empty(len(ids), dtype=torch.float64)
        for rows in _by_length([len(each) for each in ids]):
            scores[rows] = self._classifier([ids[row] for row in rows]).double().cpu()
        (name,) = self.names
        return {name: require_finite(scores, name).to(batch.token.device)}


def require_finite(scores: Tensor, name: str) -> Tensor:
    """The scores [B]; UserError where one is not finite, which NaN would hide as an abstention."""
    wrong = (~scores.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise UserError(
            f"the reward {name} scored answer {wrong[0]} of a batch {float(scores[wrong[0]])}: "
            "a score must be finite"
        )
    return scores


def _conversations(batch: Trajectories) -> list[list[int]]:
    """The ids of each row, prompt and all, up to its last chosen token."""
    last = last_step(batch.chosen)
    if not bool(last.any(-1).all()):
        raise ValueError("a row without a chosen token has no answer to be judged.")
    ends = last.int().argmax(-1).tolist()
    prompts = [batch.prompts[g].ids for g in batch.group.tolist()]
    tokens = batch.token.tolist()
    return [
        [*ids, *token[: end + 1]] for ids, token, end in zip(prompts, tokens, ends, strict=True)
    ]


def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length together, at most `MOST_TOKENS` with their padding."""
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if part and lengths[part[0]] * (len(part) + 1) > MOST_TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
