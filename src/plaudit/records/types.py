"""What passes between the parts: prompts, trajectories of text, and steps of any world.

Tensors appear in annotations only, so this file needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from plaudit.records.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor

Message = Mapping[str, str]
"""One turn of a conversation: {"role": "user", "content": "..."}."""

Text = str | Sequence[Message]
"""What a prompt column may hold: plain text (one user turn) or a list of messages."""


class RewardFunction(Protocol):
    """Any callable a user names: one finite number for each completion."""

    def __call__(
        self, prompts: list[str], completions: list[str], **columns: list[Any]
    ) -> Sequence[float]: ...


@dataclass(frozen=True)
class Prompt:
    """A question ready for the model: its text, its token ids, and its other columns."""

    text: str
    ids: tuple[int, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trajectories:
    """Answers drawn by a policy or given by somebody, as token ids that are never re-encoded.

    Shapes: B answers of at most T tokens to P prompts; row i answers `prompts[group[i]]`.
    `answer` [B, T] holds the ids (pad id after the end), `mask` [B, T] is true on the answer's
    tokens, the stop token included: the first tokens of a row, without holes. `sampling` is the
    distribution that a log-probability of these tokens is taken under: the one they were drawn
    from (temperature, top-k, top-p), or the model's own for answers that were given. `logp` [B, T]
    are the log-probabilities they were drawn with; 0 off the mask, and for given answers.
    `terminated` [B] is true where a stop token was drawn, false where the length limit cut the
    answer. What a model computed on the way belongs to whoever runs the model, never to a batch.
    """

    prompts: tuple[Prompt, ...]
    group: Tensor
    answer: Tensor
    mask: Tensor
    logp: Tensor
    terminated: Tensor
    texts: tuple[str, ...]
    sampling: Sampling
    version: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Trajectories:
        """The given answers, with the prompts they need, in the order of `rows`."""
        group = self.group.tolist()
        old = sorted({group[row] for row in rows})
        new = {g: i for i, g in enumerate(old)}
        index = list(rows)
        return replace(
            self,
            prompts=tuple(self.prompts[g] for g in old),
            group=self.group.new_tensor([new[group[row]] for row in index]),
            answer=self.answer[index],
            mask=self.mask[index],
            logp=self.logp[index],
            terminated=self.terminated[index],
            texts=tuple(self.texts[row] for row in index),
        )

    def as_given(self) -> Trajectories:
        """The same answers as if somebody had given them: log-probabilities are the model's own."""
        longest = max(int(self.mask.shape[1]), 1)
        return replace(
            self,
            sampling=Sampling(max_new_tokens=longest),
            logp=self.logp.new_zeros(self.logp.shape),
        )

    def columns(self) -> dict[str, list[Any]]:
        """The prompts' extra columns, repeated for each answer."""
        names = self.prompts[0].columns.keys() if self.prompts else ()
        return {n: [self.prompts[g].columns[n] for g in self.group.tolist()] for n in names}


@dataclass(frozen=True)
class Steps:
    """Experience in any world, ready for credit: every field is [B, T], time last.

    `obs` are observations or tokens. `terminated` marks steps after which there is no future;
    `boundary` marks steps after which credit must not flow back (terminated or truncated).
    `next_value` is given, never shifted inside. `mask` is true on steps the policy chose;
    steps off the mask (observation tokens, padding) are skipped.
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    next_value: Tensor
    reward: Tensor
    terminated: Tensor
    boundary: Tensor
    mask: Tensor
