"""The linear maps of a model's own forward code, by the faster of torch's libraries.

    with fast_linear():
        out = model(...)

Inside the block torch.nn.functional.linear is `ops.products.linear`: nothing is swapped in the
model, so names of weights, copies, optimisers, saving and adapters see the plain modules, and no
second copy of a weight can grow stale. Where torch's own product is used anyway, nothing happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from plaudit.ops.products import linear, onednn_is_faster


class _FastLinear(TorchFunctionMode):
    """Sends F.linear to `ops.products.linear`, and every other function on its way."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        return (linear if func is F.linear else func)(*args, **(kwargs or {}))


def fast_linear() -> contextlib.AbstractContextManager[object]:
    """The block in which a model's linear maps take the faster library."""
    return _FastLinear() if onednn_is_faster() else contextlib.nullcontext()
