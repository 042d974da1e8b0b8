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
    """Conversations as token ids that are never re-encoded: a prompt, and the tokens that followed.

    Shapes: B rows of at most T tokens behind P prompts; row i goes on from `prompts[group[i]]`.
    `token` [B, T] holds the ids. `there` [B, T] is true on real tokens, the first of each row;
    `chosen` [B, T] on those of them that the policy drew (its stop tokens included) or is to learn:
    the others are observations, such as a tool's output or the user's next turn, which are read and
    carry no loss. `sampling` is the distribution that log-probabilities are taken under: the one
    the tokens were drawn from (temperature, top-k, min-p, top-p), or the model's own where they were
    given. `logp` [B, T] are the log-probabilities they were drawn with; 0 off `chosen`, and for
    given tokens. `terminated` [B] is true where the conversation came to its end, `truncated` [B]
    where a limit cut it. `version` [B] counts the updates of the weights that drew the row. `texts`
    are what the policy wrote, turns separated by an empty line. What a model computed on the way
    belongs to whoever runs the model, never to a batch.
    """

    prompts: tuple[Prompt, ...]
    group: Tensor
    token: Tensor
    there: Tensor
    chosen: Tensor
    logp: Tensor
    terminated: Tensor
    truncated: Tensor
    version: Tensor
    texts: tuple[str, ...]
    sampling: Sampling

    @classmethod
    def of_answers(
        cls,
        *,
        prompts: Sequence[Prompt],
        group: Tensor,
        token: Tensor,
        mask: Tensor,
        logp: Tensor,
        terminated: Tensor,
        texts: Sequence[str],
        sampling: Sampling,
        version: int = 0,
    ) -> Trajectories:
        """Conversations of one turn: all that follows the prompt, on the `mask`, was chosen, and
        what did not come to its end was cut."""
        return cls(
            prompts=tuple(prompts),
            group=group,
            token=token,
            there=mask,
            chosen=mask,
            logp=logp,
            terminated=terminated,
            truncated=~terminated,
            version=group.new_full((len(group),), version),
            texts=tuple(texts),
            sampling=sampling,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Trajectories:
        """The given rows, with the prompts they need, in the order of `rows`."""
        group = self.group.tolist()
        old = sorted({group[row] for row in rows})
        new = {g: i for i, g in enumerate(old)}
        index = list(rows)
        return replace(
            self,
            prompts=tuple(self.prompts[g] for g in old),
            group=self.group.new_tensor([new[group[row]] for row in index]),
            texts=tuple(self.texts[row] for row in index),
            **{name: getattr(self, name)[index] for name in (*OF_TOKENS, *OF_ROWS)},
        )

    def as_given(self) -> Trajectories:
        """The same rows as if somebody had given them: log-probabilities are the model's own."""
        longest = max(int(self.there.shape[1]), 1)
        return replace(
            self,
            sampling=Sampling(max_new_tokens=longest),
            logp=self.logp.new_zeros(self.logp.shape),
        )

    def to(self, device: Any) -> Trajectories:
        """The same rows with every tensor on `device`."""
        names = ("group", *OF_TOKENS, *OF_ROWS)
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def columns(self) -> dict[str, list[Any]]:
        """The prompts' extra columns, repeated for each row."""
        names = self.prompts[0].columns.keys() if self.prompts else ()
        return {n: [self.prompts[g].columns[n] for g in self.group.tolist()] for n in names}


@dataclass(frozen=True)
class Conversation:
    """One row as far as it has come: its prompt, and the messages since, the policy's and others'."""

    row: int
    prompt: Prompt
    messages: tuple[Message, ...]


class Replier(Protocol):
    """Who answers the policy: a tool, a simulated user, a world of text."""

    @property
    def max_turns(self) -> int:
        """Turns of the policy at most; a conversation that would go on after them is cut."""
        ...

    def __call__(self, conversations: Sequence[Conversation]) -> Sequence[Message | None]:
        """The next message of each, whose last is the policy's; None where it has come to its end."""
        ...


OF_TOKENS = ("token", "there", "chosen", "logp")
"""Fields of `Trajectories` that are [B, T]."""

OF_ROWS = ("terminated", "truncated", "version")
"""Fields of `Trajectories` that are [B], besides `group`."""


def join(batches: Sequence[Trajectories]) -> Trajectories:
    """The rows of all batches in their order; rows of equal prompts come to share one.

    Raises ValueError where there is no batch, or where they were drawn under different sampling:
    their log-probabilities would be of different distributions.
    """
    if not batches:
        raise ValueError("there are no batches to join")
    for other in batches[1:]:
        if other.sampling.distribution != batches[0].sampling.distribution:
            raise ValueError(
                f"batches drawn under {batches[0].sampling} and {other.sampling} cannot be joined"
            )
    prompts: list[Prompt] = []
    known: dict[tuple[int, ...], list[int]] = {}
    group: list[int] = []
    for batch in batches:
        place = [_place(prompt, prompts, known) for prompt in batch.prompts]
        group += [place[g] for g in batch.group.tolist()]
    first, width = batches[0], max(batch.token.shape[1] for batch in batches)
    longest = max(batch.sampling.max_new_tokens for batch in batches)
    tokens = {n: _stacked([getattr(b, n) for b in batches], width) for n in OF_TOKENS}
    rows = {n: _stacked([getattr(b, n) for b in batches], None) for n in OF_ROWS}
    return Trajectories(
        prompts=tuple(prompts),
        group=first.group.new_tensor(group),
        texts=tuple(text for batch in batches for text in batch.texts),
        sampling=first.sampling.model_copy(update={"max_new_tokens": longest}),
        **tokens,
        **rows,
    )


def _place(prompt: Prompt, prompts: list[Prompt], known: dict[tuple[int, ...], list[int]]) -> int:
    """Where an equal prompt stands in `prompts`, which gets it if there is none; `known` finds
    prompts by their ids."""
    places = known.setdefault(prompt.ids, [])
    for place in places:
        if prompts[place] is prompt or prompts[place] == prompt:
            return place
    prompts.append(prompt)
    places.append(len(prompts) - 1)
    return places[-1]


def _stacked(parts: Sequence[Tensor], width: int | None) -> Tensor:
    """Parts [b, t] below each other in [B, width], zeros where a part is narrower; or [b] in [B]."""
    num_rows = sum(len(part) for part in parts)
    shape = (num_rows,) if width is None else (num_rows, width)
    out, at = parts[0].new_zeros(shape), 0
    for part in parts:
        rows = slice(at, at + len(part))
        if width is None:
            out[rows] = part
        else:
            out[rows, : part.shape[1]] = part
        at += len(part)
    return out


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
