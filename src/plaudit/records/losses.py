"""Losses as values: what a loss is, and what it is shown of a batch.

    @dataclass(frozen=True)
    class ClippedPolicy:
        needs: ClassVar = ("logp",)
        clip: float

        def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
            each = clipped_surrogate(part["logp"], part.logp_old, part["adv"], ...)
            return aggregate(each, part.chosen, part.denominator), {"loss": ...}

    actor.update(batch, ClippedPolicy(0.2), fields={"adv": adv}, denominator=n, lr=1e-5)

A loss holds its coefficients and nothing else, so that it can be sent to wherever the model is. The
role cuts the batch and the fields into parts, calls the loss on each, and returns the sums of the
numbers that it named. The denominator is a number of the whole batch, so no cut changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from plaudit.records.types import Trajectories

Numbers = Mapping[str, "Tensor"]
"""Scalars by name that add up over the parts of a batch: sums, never means."""

STATISTICS = ("logp", "entropy", "distribution", "hidden", "value", "score")
"""What a loss may need of a model: log-probability and entropy of chosen tokens, their whole
`Distribution`, the decoder's output that predicts them [b, T, H]; a value of each; a score a row."""


class Loss(Protocol):
    """A frozen dataclass, picklable: the coefficients of a loss, and how it is computed."""

    @property
    def needs(self) -> Sequence[str]:
        """The statistics that it reads, of `STATISTICS`."""
        ...

    @property
    def together(self) -> bool:
        """Whether all rows of a prompt must be in one part, as where they are compared."""
        ...

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The part's share of the loss, and of the numbers to be reported."""
        ...


class Distribution(Protocol):
    """The distributions that chosen tokens were drawn from: never all in memory at once."""

    def each(self, function: Callable[..., Tensor], *of_tokens: Tensor) -> Tensor:
        """function(logits [n, V], ...) -> [n] for the chosen tokens, chunk by chunk: [b, T].

        `of_tokens` [b, T, ...] are cut as the logits are. Logits are the model's own, at
        temperature 1; 0 off the chosen tokens. Differentiable; chunks are made again on the way
        back.
        """
        ...


@dataclass(frozen=True)
class Part:
    """Some rows of a batch as a loss meets them.

    `chosen` [b, T] marks the tokens that count, `logp_old` [b, T] is what they were drawn with,
    `denominator` belongs to the whole batch. `part["adv"]` is a field that the caller gave, cut to
    these rows, or a statistic that the loss needs.
    """

    chosen: Tensor
    logp_old: Tensor
    denominator: float
    statistics: Mapping[str, Any]
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name in self.statistics:
            return self.statistics[name]
        if name in self.fields:
            return self.fields[name]
        given = ", ".join([*self.statistics, *self.fields]) or "nothing"
        raise KeyError(f"the loss asks for {name!r}, but is given {given}")


def cut(fields: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The fields at these rows: tensors by their first axis, others by their own `among(rows)`."""
    index = list(rows)
    return {
        name: value.among(index) if hasattr(value, "among") else value[index]
        for name, value in fields.items()
    }


def check_loss(
    loss: Loss, fields: Mapping[str, Any], batch: Trajectories, *, gives: Sequence[str]
) -> None:
    """ValueError unless the role gives what the loss needs, and each tensor has a row for each of
    the batch's."""
    for name in loss.needs:
        if name not in gives:
            raise ValueError(
                f"{type(loss).__name__} needs {name!r}, but this role gives {', '.join(gives)}"
            )
    for name, value in fields.items():
        if not hasattr(value, "among") and len(value) != len(batch):
            raise ValueError(
                f"field {name!r} has {len(value)} rows, but the batch has {len(batch)}"
            )
