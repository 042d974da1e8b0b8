"""A model with some of its parts exchanged, sharing all others: nothing is copied or changed."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def with_modules(module: nn.Module, **children: nn.Module) -> Any:
    """The same module object but for the named children; everything else is shared."""
    clone: Any = copy.copy(module)
    clone.__dict__ = dict(module.__dict__)
    clone.__dict__["_modules"] = {**module._modules, **children}
    return clone
