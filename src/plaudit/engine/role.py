"""What every role in this process shares: a top that gives statistics, and how it is taught.

A batch is cut into layouts, the loss is called on each, and the gradients add up. A loss whose rows
must be seen together, and whose prompts do not fit into one layout each, is differentiated by the
statistics of the whole batch first; every layout then carries its share back: the same gradient for
one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.memory import give_back_memory
from plaudit.ops.masks import wide
from plaudit.records.losses import Loss, Part, check_loss, cut
from plaudit.records.state import Saved

if TYPE_CHECKING:
    from plaudit.engine.tops import Top
    from plaudit.models.heads import LMHead
    from plaudit.models.layout import Layout
    from plaudit.records.types import Trajectories


class Backbone(Protocol):
    """What a role asks of the model it is a part of (`shared.SharedBackbone`)."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        ...

    def layouts(self, batch: Trajectories) -> Iterator[Layout]:
        """The batch in micro-batches, where the model is."""
        ...

    def close(self) -> None:
        """Give back what is held besides the weights."""
        ...


class Role:
    """A top over the shared trunk, frozen or taught."""

    gives: ClassVar[tuple[str, ...]] = ()
    """The statistics that `statistics` can make, of `losses.STATISTICS`."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @property
    def device(self) -> torch.device:
        """Where the model is, and where its numbers are made."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.backbone.dtype

    def close(self) -> None:
        """Give back the sampler's copies of weights and the trunk's kept states."""
        self.backbone.close()

    def told(self, batch: Trajectories, name: str) -> Tensor:
        """`gathered`, and what that took of memory given back: what comes next takes other sizes."""
        found = self.gathered(batch, name)
        give_back_memory()
        return found

    def statistics(
        self, layout: Layout, batch: Trajectories, needs: Sequence[str]
    ) -> dict[str, Any]:
        """What `needs` names, of the layout's rows: [b, T], T of the batch, or [b]."""
        raise NotImplementedError

    @torch.no_grad()
    def gathered(self, batch: Trajectories, name: str) -> Tensor:
        """One statistic of the whole batch, in its order and where it is, without gradient."""
        shape = batch.chosen.shape if name != "score" else (len(batch),)
        home, batch = batch.token.device, batch.to(self.device)
        out = torch.zeros(shape, dtype=wide(self.dtype), device=self.device)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.statistics(layout, batch, (name,))[name].to(out)
        return out.to(home)


class Taught(Role):
    """A role that learns; `teach` says what of it."""

    trained: Top
    learner: Learner
    version: int

    def teach(
        self, trained: Top, parameters: Mapping[str, torch.nn.Parameter], adam: AdamConfig | None
    ) -> None:
        """Begin to teach `parameters`, those of the top `trained` among them."""
        self.trained = trained
        self.learner = Learner(parameters, adam or AdamConfig())
        self.version = 0

    def update(
        self,
        batch: Trajectories,
        loss: Loss,
        *,
        fields: Mapping[str, Any] | None = None,
        denominator: float,
        lr: float,
    ) -> dict[str, float]:
        """One optimiser step; see `records.roles.Learning`."""
        numbers = self.accumulate(batch, loss, fields=fields, denominator=denominator)
        return {**numbers, "grad_norm": self.step(lr=lr)}

    def accumulate(
        self,
        batch: Trajectories,
        loss: Loss,
        *,
        fields: Mapping[str, Any] | None = None,
        denominator: float,
    ) -> dict[str, float]:
        """Leave the gradient of `loss` on the weights, and return the sums of its numbers.

        Of ranks that each hold some rows of a batch, gradients and sums add up to the whole's.
        """
        fields = fields or {}
        check_loss(loss, fields, batch, gives=self.gives)
        batch = batch.to(self.device)
        fields = {n: x.to(self.device) if isinstance(x, Tensor) else x for n, x in fields.items()}
        self.learner.zero_grad()
        totals: dict[str, Tensor] = {}
        layouts = list(self.backbone.layouts(batch))
        whole = [set(layout.groups) for layout in layouts]
        if not loss.together or sum(map(len, whole)) == len(set().union(*whole)):
            for layout in layouts:
                found = self.statistics(layout, batch, loss.needs)
                part = self._part(batch, layout.rows, found, fields, denominator)
                _backward(loss, part, totals)
        else:
            self._accumulate_whole(batch, loss, layouts, fields, denominator, totals)
        return {name: float(x) for name, x in totals.items()}

    def _accumulate_whole(
        self,
        batch: Trajectories,
        loss: Loss,
        layouts: Sequence[Layout],
        fields: Mapping[str, Any],
        denominator: float,
        totals: dict[str, Tensor],
    ) -> None:
        if "distribution" in loss.needs or "hidden" in loss.needs:
            raise ValueError(
                f"{type(loss).__name__} needs whole distributions of all rows of a prompt "
                "together, which do not fit into one part: give it fewer rows a prompt"
            )
        found = {name: self.gathered(batch, name).requires_grad_(True) for name in loss.needs}
        every = range(len(batch))
        _backward(loss, self._part(batch, every, found, fields, denominator), totals)
        slopes = {name: x.grad for name, x in found.items() if x.grad is not None}
        for layout in layouts:
            mine = self.statistics(layout, batch, list(slopes))
            rows = list(layout.rows)
            given = [slopes[name][rows].to(mine[name]) for name in slopes]
            torch.autograd.backward([mine[name] for name in slopes], given)

    def _part(
        self,
        batch: Trajectories,
        rows: Sequence[int],
        found: Mapping[str, Any],
        fields: Mapping[str, Any],
        denominator: float,
    ) -> Part:
        index = list(rows)
        return Part(
            chosen=batch.chosen[index],
            logp_old=batch.logp[index],
            denominator=float(denominator),
            statistics=found,
            fields=cut(fields, index),
        )

    def step(self, *, lr: float) -> float:
        """One step along the gradient that was left; its norm before clipping."""
        grad_norm = self.learner.step(lr=lr)
        self.trained.written()
        self.version += 1
        return grad_norm

    def state(self) -> Saved:
        """Weights and moments, lent until the next step, and the version."""
        arrays, _ = self.learner.state()
        return arrays, {"version": self.version}

    def restore(self, saved: Saved) -> None:
        """Take back what `state` gave; without moments the optimiser starts afresh."""
        self.learner.restore(saved[0])
        self.version = int(saved[1]["version"])
        self.trained.written()


class HeadDistribution:
    """The distributions of a layout's chosen tokens, made chunk by chunk from hidden states."""

    def __init__(self, head: LMHead, hidden: Tensor, layout: Layout, num_steps: int) -> None:
        """`hidden` [n, H] are those that predict the layout's chosen tokens."""
        self._head, self._hidden = head, hidden
        self._layout, self._num_steps = layout, num_steps

    def each(self, function: Callable[..., Tensor], *of_tokens: Tensor) -> Tensor:
        """function(logits [n, V], ...) -> [n] for the chosen tokens: [b, T]."""
        layout = self._layout
        width = layout.chosen.shape[1]
        of_chosen = [x[:, :width][layout.chosen] for x in of_tokens]
        values = self._head.each(self._hidden, function, *of_chosen)
        return spread(values, layout, self._num_steps)


def spread(x: Tensor, layout: Layout, num_steps: int) -> Tensor:
    """Values [n, ...] of the layout's chosen tokens at their places in [b, T, ...]; 0 elsewhere."""
    mask = torch.zeros((len(layout.rows), num_steps), dtype=torch.bool, device=x.device)
    mask[:, : layout.chosen.shape[1]] = layout.chosen
    out = x.new_zeros((*mask.shape, *x.shape[1:]))
    where = mask.view(*mask.shape, *(1 for _ in x.shape[1:]))
    return out.masked_scatter(where.expand(out.shape), x)


def _backward(loss: Loss, part: Part, totals: dict[str, Tensor]) -> None:
    """Differentiate the loss of one part, and add its numbers to the totals in float64."""
    value, numbers = loss(part)
    torch.autograd.backward(value)
    for name, x in numbers.items():
        wide_x = x.detach().double()
        totals[name] = totals[name] + wide_x if name in totals else wide_x
