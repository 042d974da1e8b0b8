"""The linear maps of a model's own forward code, by the faster of torch's libraries.

    with fast_linear():
        out = model(...)

Inside the block torch.nn.functional.linear is `ops.products.linear`. Where torch's own product is
used anyway, nothing happens.
"""

from __future__ import annotations

import contextlib

from torch.nn import functional as F

from plaudit.models.exchanged import Exchanged
from plaudit.ops.products import linear, onednn_is_faster


def fast_linear() -> contextlib.AbstractContextManager[object]:
    """The block in which a model's linear maps take the faster library."""
    return Exchanged({F.linear: linear}) if onednn_is_faster() else contextlib.nullcontext()
