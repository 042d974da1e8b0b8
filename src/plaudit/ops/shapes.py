"""The check that keeps broadcasting out: tensors given together must have one shape."""

from __future__ import annotations

from torch import Tensor


def check_same_shape(**tensors: Tensor | None) -> None:
    """Raise ValueError naming the first argument whose shape differs; None is skipped."""
    given = {name: tuple(x.shape) for name, x in tensors.items() if x is not None}
    first, expected = next(iter(given.items()))
    for name, shape in given.items():
        if shape != expected:
            raise ValueError(
                f"{name} has shape {shape}, but {first} has {expected}: "
                "give them the same shape; nothing is broadcast."
            )


def check_within(name: str, x: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= x <= high (a NaN is refused too)."""
    if not low <= x <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], found {x!r}.")
