"""What layers see of an encoded observation: numbers as they are, choices as one-hot codes, no mask.

The product of a weight with a one-hot code is one column of the weight, and its gradient in the
weight is 0 but in that column; `products` and `spread` are these, for any number of choices at the
cost of one. `one_hot` writes the codes out, which is quicker where they are short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.nets.mlp_kernels import F32, compiled
from plaudit.records.spaces import ObsSpec

I64 = NDArray[np.int64]


class Features:
    """Which columns of an observation [B, columns] are numbers, which are choices, and the place of
    each among the features; `extra` numbers (a critic's action) follow at the end."""

    def __init__(self, spec: ObsSpec, extra: int = 0) -> None:
        numbers, places, choices, sizes, offsets = [], [], [], [], []
        column = feature = 0
        for piece in spec.pieces:
            for i in range(piece.size if piece.kind != "mask" else 0):
                if piece.kind == "choice":
                    choices.append(column + i)
                    sizes.append(piece.sizes[i])
                    offsets.append(feature + sum(piece.sizes[:i]))
                else:
                    numbers.append(column + i)
                    places.append(feature + i)
            column, feature = column + piece.size, feature + piece.num_features
        numbers += range(column, column + extra)
        places += range(feature, feature + extra)
        self.num_columns, self.num_features = column + extra, feature + extra
        self._numbers, self._places = np.array(numbers, np.intp), np.array(places, np.intp)
        self._choices, self._sizes = np.array(choices, np.intp), np.array(sizes, np.int64)
        self._offsets = np.array(offsets, np.int64)
        self._codes = self._choices, self._sizes, self._offsets

    def are(self, x: Any) -> bool:
        """Whether `x` [..., n] is spelled out already."""
        return bool(x.shape[-1] == self.num_features != self.num_columns)

    def one_hot(self, x: NDArray[Any]) -> F32:
        """[..., features], newly made, of x [..., columns]; what is spelled out already stays."""
        if self.are(x):
            return np.asarray(x, np.float32)
        rows = np.ascontiguousarray(x, np.float32).reshape(-1, self.num_columns)
        out = np.zeros((len(rows), self.num_features), np.float32)
        fit = spell(rows, self._numbers, self._places, *self._codes, out)
        assert fit, "a choice out of its range"
        return out.reshape(*x.shape[:-1], self.num_features)

    def one_hot_tensor(self, x: Tensor) -> Tensor:
        """The same for a tensor on any device, differentiable in the numbers."""
        if self.are(x):
            return x
        out = x.new_zeros(*x.shape[:-1], self.num_features)
        out[..., torch.from_numpy(self._places)] = x[..., torch.from_numpy(self._numbers)]
        chosen = x.detach()[..., torch.from_numpy(self._choices)].long()
        return out.scatter(-1, chosen + torch.from_numpy(self._offsets).to(x.device), 1.0)

    def products(self, x: F32, weight: F32) -> F32:
        """one_hot(x) @ weightᵀ [B, out], of x [B, columns] and weight [out, features]."""
        out: F32 = x[:, self._numbers] @ weight[:, self._places].T
        add_columns(weight, self._chosen(x), out)
        return out

    def spread(self, grad: F32, x: F32, into: F32) -> None:
        """into = gradᵀ @ one_hot(x) [out, features], of grad [B, out] and x [B, columns]."""
        into[:] = 0.0
        into[:, self._places] = grad.T @ x[:, self._numbers]
        add_to_columns(grad, self._chosen(x), into)

    def _chosen(self, x: NDArray[Any]) -> I64:
        """The features [..., k] that the choices of x [..., columns] set to 1."""
        number = x[..., self._choices].astype(np.int64)
        assert ((number >= 0) & (number < self._sizes)).all(), "a choice out of its range"
        chosen: I64 = number + self._offsets
        return chosen


@compiled
def spell(
    x: F32, numbers: I64, places: I64, choices: I64, sizes: I64, offsets: I64, out: F32
) -> bool:
    """Writes numbers and codes of x [B, columns] into out [B, features], which is 0; false where a
    choice is out of its range."""
    for b in range(x.shape[0]):
        for i in range(numbers.shape[0]):
            out[b, places[i]] = x[b, numbers[i]]
        for k in range(choices.shape[0]):
            number = np.int64(x[b, choices[k]])
            if number < 0 or number >= sizes[k]:
                return False
            out[b, offsets[k] + number] = np.float32(1.0)
    return True


@compiled
def add_columns(weight: F32, chosen: I64, out: F32) -> None:
    """out[b, j] += Σ_k weight[j, chosen[b, k]]: weight [out, features], chosen [B, k]."""
    for b in range(chosen.shape[0]):
        for k in range(chosen.shape[1]):
            column = chosen[b, k]
            for j in range(out.shape[1]):
                out[b, j] += weight[j, column]


@compiled
def add_to_columns(grad: F32, chosen: I64, into: F32) -> None:
    """into[j, chosen[b, k]] += grad[b, j]: grad [B, out], chosen [B, k], into [out, features]."""
    for b in range(chosen.shape[0]):
        for k in range(chosen.shape[1]):
            column = chosen[b, k]
            for j in range(grad.shape[1]):
                into[j, column] += grad[b, j]
