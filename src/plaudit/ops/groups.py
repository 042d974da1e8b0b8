"""Answers of one prompt beside each other: from rows [B] to groups [P, G] and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from plaudit.ops.shapes import check_same_shape


@dataclass(frozen=True)
class Groups:
    """Where each of B rows stands in [P, G]: P groups, G answers in the largest of them.

    `place` [B] counts in the flattened [P·G]; places that no row has belong to smaller groups.
    """

    place: Int[Tensor, " B"]
    shape: tuple[int, int]

    @classmethod
    def of(cls, group: Int[Tensor, " B"]) -> Groups:
        """By the number of each row's group; rows keep their order inside it."""
        _, index, counts = torch.unique(group, return_inverse=True, return_counts=True)
        order = index.argsort(stable=True)
        first = counts.cumsum(0) - counts
        within = torch.empty_like(index)
        within[order] = torch.arange(len(group), device=group.device) - first[index[order]]
        shape = (len(counts), int(counts.max()))
        return cls(index * shape[1] + within, shape)

    def spread(
        self, x: Float[Tensor, " B"], heard: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "P G"], Bool[Tensor, "P G"]]:
        """Values, 0 where nobody is heard, and who is heard: False where no row is."""
        check_same_shape(x=x, heard=heard)
        values = x.new_zeros(self.shape).view(-1)
        mask = torch.zeros(self.shape, dtype=torch.bool, device=x.device).view(-1)
        values[self.place] = torch.where(heard, x, 0.0)
        mask[self.place] = heard
        return values.view(self.shape), mask.view(self.shape)

    def back(self, x: Shaped[Tensor, "P G"]) -> Shaped[Tensor, " B"]:
        """Each row's value."""
        return x.reshape(-1)[self.place]
