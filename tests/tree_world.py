"""The roles of language-model algorithms on trees of tokens (`trees.py`): tables over the nodes.

    actor = TreeActor(tree, logits)                 logits [N, V], a row for each inner node

Temperature is honoured; top-k, top-p and greedy draws are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from plaudit.lm.kto import mismatched, mismatched_level
from plaudit.records.losses import Part, check_loss, cut
from plaudit.records.sampling import Sampling
from plaudit.records.types import Trajectories
from trees import BANDIT, LOPSIDED, SQUARE, TWO_PROMPTS, Tree, bandit, some_logits, some_rewards

__all__ = [
    "BANDIT",
    "LOPSIDED",
    "SQUARE",
    "TWO_PROMPTS",
    "Tree",
    "TreeActor",
    "TreeCritic",
    "TreeJudge",
    "TreeReference",
    "TreeReward",
    "TreeRole",
    "bandit",
    "some_logits",
    "some_rewards",
]


class TreeRole:
    """A policy over the tree; nobody teaches it, so it is a reference."""

    def __init__(self, tree: Tree, logits: Tensor) -> None:
        self.tree = tree
        self.logits = logits.detach().clone()
        self.device, self.dtype = torch.device("cpu"), logits.dtype

    def stats(self, batch: Trajectories) -> dict[str, Any]:
        """`logp`, `entropy` and `distribution` of the chosen tokens, differentiable; the last at
        temperature 1, the others at the batch's."""
        tempered = self._tempered(batch.sampling)
        logp = self.tree.log_policy(tempered)
        each = -(logp.exp() * logp.masked_fill(~self.tree.allowed, 0.0)).sum(-1)
        place = self.tree.places(batch)
        return {
            "logp": self.tree.logprobs(tempered, batch),
            "entropy": torch.where(batch.chosen, each[place], 0.0),
            "distribution": TreeDistribution(self.tree, self.logits, place, batch.chosen),
        }

    def logprobs(self, batch: Trajectories) -> Tensor:
        with torch.no_grad():
            return self.stats(batch)["logp"]

    def close(self) -> None: ...

    def _tempered(self, sampling: Sampling) -> Tensor:
        if sampling.top_k or sampling.top_p < 1 or not sampling.temperature:
            raise ValueError(f"a tree is drawn from whole and never greedily, not under {sampling}")
        return self.logits / sampling.temperature


TreeReference = TreeRole


class TreeDistribution:
    """The distributions before a batch's chosen tokens, a few at a time."""

    def __init__(self, tree: Tree, logits: Tensor, place: Tensor, chosen: Tensor) -> None:
        self.logits = logits.masked_fill(~tree.allowed, -torch.inf)[place[chosen]]
        self.chosen = chosen

    def each(self, function: Callable[..., Tensor], *of_tokens: Tensor, chunk: int = 5) -> Tensor:
        """function(logits [n, V], ...) -> [n] for the chosen tokens: [b, T], 0 elsewhere."""
        whole = [self.logits, *(x[self.chosen] for x in of_tokens)]
        parts = zip(*(x.split(chunk) for x in whole), strict=True)
        found = torch.cat([self.logits.new_zeros(0), *(function(*part) for part in parts)])
        return found.new_zeros(self.chosen.shape).masked_scatter(self.chosen, found)


class Taught:
    """A table over the nodes that is taught by Adam or by plain gradient descent.

    `micro` cuts a batch into parts of so many rows, or of the row counts named in turn; of so many
    groups where the loss wants the rows of a prompt together. Gradients and numbers add up.
    """

    gives: tuple[str, ...]

    def __init__(
        self,
        tree: Tree,
        table: Tensor,
        *,
        adam: bool = True,
        micro: int | Sequence[int] | None = None,
    ) -> None:
        self.tree = tree
        self.table = table.detach().clone().requires_grad_(True)
        self.device, self.dtype = torch.device("cpu"), table.dtype
        make = torch.optim.Adam if adam else torch.optim.SGD
        self.optimiser = make([self.table], lr=1.0)
        self.micro = [micro] if isinstance(micro, int) else micro
        self.version = 0

    def stats(self, batch: Trajectories) -> dict[str, Any]:
        """What `gives` names, of the batch's rows; differentiable."""
        raise NotImplementedError

    def gradient(self, batch, loss, *, fields=None, denominator) -> dict[str, float]:
        """Leaves the loss's gradient on the table; the sums of its numbers."""
        fields = fields or {}
        check_loss(loss, fields, batch, gives=self.gives)
        self.optimiser.zero_grad()
        told: dict[str, float] = {}
        for some, own in self._parts(batch, fields, loss.together):
            stats = self.stats(some)
            needed = {name: stats[name] for name in loss.needs}
            value, numbers = loss(Part(some.chosen, some.logp, float(denominator), needed, own))
            value.backward()
            for name, x in numbers.items():
                told[name] = told.get(name, 0.0) + float(x.detach())
        return told

    def _parts(
        self, batch: Trajectories, fields: Mapping[str, Any], together: bool
    ) -> Iterator[tuple[Trajectories, Mapping[str, Any]]]:
        if self.micro is None:
            yield batch, fields
            return
        group = batch.group.tolist() if together else list(range(len(batch)))
        ids, sizes = sorted(set(group)), itertools.cycle(self.micro)
        while ids:
            size = next(sizes)
            mine, ids = set(ids[:size]), ids[size:]
            rows = [row for row, g in enumerate(group) if g in mine]
            yield batch.select(rows), cut(fields, rows)

    def update(self, batch, loss, *, fields=None, denominator, lr: float) -> dict[str, float]:
        told = self.gradient(batch, loss, fields=fields, denominator=denominator)
        assert self.table.grad is not None
        self.optimiser.param_groups[0]["lr"] = lr
        self.optimiser.step()
        self.version += 1
        return {**told, "grad_norm": float(self.table.grad.norm())}

    def state(self):
        found = {"table": self.table.detach().clone()}
        for name, x in self.optimiser.state.get(self.table, {}).items():
            if isinstance(x, Tensor):
                found[f"moment.{name}"] = x.clone()
        return found, {"version": self.version}

    def restore(self, saved) -> None:
        with torch.no_grad():
            self.table.copy_(saved[0]["table"])
        moments = {
            name.removeprefix("moment."): x.clone()
            for name, x in saved[0].items()
            if name.startswith("moment.")
        }
        self.optimiser.state.pop(self.table, None)
        if moments:
            self.optimiser.state[self.table] = moments
        self.version = int(saved[1]["version"])


class TreeActor(TreeRole, Taught):
    """A policy that is taught; its table is `logits`."""

    gives = ("logp", "entropy", "distribution")

    def __init__(self, tree: Tree, logits: Tensor, **how: Any) -> None:
        Taught.__init__(self, tree, logits, **how)
        self.logits = self.table

    def generate(
        self, prompts, *, num_answers: int, sampling: Sampling, seed: int, replier=None
    ) -> Trajectories:
        if sampling.max_new_tokens < self.tree.longest or replier is not None:
            raise ValueError("a tree's answers are drawn whole, and nobody replies to them")
        drawn = self.tree.draw(self._tempered(sampling), prompts, num_answers, seed)
        version = torch.full_like(drawn.version, self.version)
        return replace(drawn, sampling=sampling, version=version)

    def sync(self, version: int) -> None:
        if version != self.version:
            raise ValueError(f"version {version} is asked for, but the weights are {self.version}")

    def save(self, folder) -> None: ...


class TreeCritic(Taught):
    """A value of every node, from 0; its table is `value` [N]."""

    gives = ("value",)

    def __init__(self, tree: Tree, dtype: torch.dtype = torch.float64, **how: Any) -> None:
        super().__init__(tree, torch.zeros(len(tree.nodes), dtype=dtype), **how)
        self.value = self.table

    def stats(self, batch: Trajectories) -> dict[str, Any]:
        return {"value": torch.where(batch.chosen, self.value[self.tree.places(batch)], 0.0)}

    def values(self, batch: Trajectories) -> Tensor:
        with torch.no_grad():
            return self.stats(batch)["value"]

    def close(self) -> None: ...


class TreeReward:
    """A reward of every answer, on its last chosen token."""

    def __init__(self, tree: Tree, reward: Sequence[Tensor]) -> None:
        self.tree, self.reward = tree, torch.cat(list(reward))

    def __call__(self, batch: Trajectories) -> Tensor:
        place = torch.arange(batch.chosen.shape[1])
        last = torch.where(batch.chosen, place, -1).max(1, keepdim=True).values
        score = self.reward[self.tree.numbers(batch)]
        return torch.where(batch.chosen & (place == last), score[:, None], 0.0)


class TreeJudge:
    """Scores of answers by tables, one for each measure; NaN abstains."""

    def __init__(
        self,
        tree: Tree,
        tables: Mapping[str, Sequence[Tensor]],
        weights: Sequence[float] | None = None,
    ) -> None:
        self.tree, self.tables = tree, tables
        self.names = tuple(tables)
        self.weights = tuple(weights or [1.0] * len(tables))

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        number = self.tree.numbers(batch)
        return {name: torch.cat(list(table))[number] for name, table in self.tables.items()}


def level_of(beta: float, actor: Any, reference: Any, batch: Trajectories) -> float:
    """KTO's z of a batch, whose answers the reference reads behind other prompts."""
    other = mismatched(batch)
    ref = torch.zeros(0) if other is None else (reference.logprobs(other) * other.chosen).sum(1)
    return mismatched_level(beta, actor, other, ref)
