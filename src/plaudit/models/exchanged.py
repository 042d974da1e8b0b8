"""Functions of torch exchanged for others while a model's own forward code runs.

    with Exchanged({F.linear: linear}):
        out = model(...)

Nothing is swapped in the model, so names of weights, copies, optimisers, saving and adapters see the
plain modules, and no second copy of a weight can grow stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


class Exchanged(TorchFunctionMode):
    """The block in which some functions are others; inside those, torch's own are what they were."""

    def __init__(self, exchanged: Mapping[Function, Function]) -> None:
        super().__init__()
        self._exchanged = exchanged

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls what stands for `func`, or `func` itself."""
        del types
        return self._exchanged.get(func, func)(*args, **(kwargs or {}))
