"""An MLP whose inputs are choices among many: its first layer looks its products up.

The weights, their order and their first values are those of an MLP on the one-hot codes, so the same
arrays load into either, and all numbers agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plaudit.nets.mlp import MLP, Trace
from plaudit.nets.mlp_kernels import F32, column_sums, relu_back, tanh_back
from plaudit.nets.one_hot import Features
from plaudit.records.errors import UserError


class LookUpMLP(MLP):
    """Layers of (features, hidden..., outputs) on observations [B, columns], as `Features` has them.

    What is spelled out already, [B, features], is taken as an MLP takes it.
    """

    def __init__(self, features: Features, sizes: Sequence[int], **keys: Any) -> None:
        super().__init__((features.num_features, *sizes), **keys)
        self.features = features

    def infer(self, x: NDArray[Any]) -> F32:
        """Outputs without autograd, NumPy to NumPy."""
        if self.on_cpu() and not self.features.are(x):
            return self.trace(np.asarray(x, np.float32))[0]
        return super().infer(x)

    def trace(self, x: F32) -> tuple[F32, Trace]:
        """The outputs, and what `backprop` needs."""
        if not self.on_cpu() or self.features.are(x):
            return super().trace(x)
        inputs, last = [x], len(self._weights) - 1
        for layer, bias in enumerate(self._biases):
            z = self._looked_up(x) if layer == 0 else inputs[-1] @ self._turned[layer]
            if layer == last:
                z += bias
                return z, Trace(inputs)
            self._activate(z, bias)
            inputs.append(z)
        raise AssertionError("an MLP has a layer")

    def _looked_up(self, x: F32) -> F32:
        """x in place of its codes through the first weight: [B, out], or [N, B, out] with copies."""
        weight = self._weights[0]
        if self.copies == 1:
            return self.features.products(x, weight)
        each = x if x.ndim == 3 else [x] * self.copies
        return np.stack([self.features.products(*own) for own in zip(each, weight, strict=True)])

    def backprop(
        self, trace: Trace, grad_out: F32, *, weights: bool, inputs: bool, again: bool = False
    ) -> tuple[F32 | None, F32 | None]:
        """The gradient of `flat`; a choice has none."""
        x = trace.inputs[0]
        if self.features.are(x):
            return super().backprop(trace, grad_out, weights=weights, inputs=inputs, again=again)
        assert not inputs, "a choice has no gradient"
        if not weights:
            return None, None
        into, places = self._room(again)
        grad = np.ascontiguousarray(grad_out)
        back = tanh_back if self.activation == "tanh" else relu_back
        for layer in range(len(self._weights) - 1, -1, -1):
            of_weight, of_bias = places[layer]
            if layer == len(self._weights) - 1:
                self._each(column_sums, grad, of_bias)
            else:
                self._each(back, grad, trace.inputs[layer + 1], of_bias)
            if layer:
                np.matmul(grad.swapaxes(-1, -2), trace.inputs[layer], out=of_weight)
                weight = self._weights[layer]
                grad = grad * weight if weight.shape[-2] == 1 else grad @ weight
            elif self.copies == 1:
                self.features.spread(grad, x, of_weight)
            else:
                for copy in range(self.copies):
                    own = x if x.ndim == 2 else x[copy]
                    self.features.spread(grad[copy], own, of_weight[copy])
        return into, None

    def _by_torch(self, x: Tensor) -> Tensor:
        return super()._by_torch(self.features.one_hot_tensor(x))

    def _check_input(self, shape: Any) -> None:
        if shape[-1] not in (self.features.num_columns, self.features.num_features):
            raise UserError(
                f"the net takes [B, {self.features.num_columns}], found shape {list(shape)}."
            )
