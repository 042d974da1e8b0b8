"""How pictures of finite worlds look: colours, type, and a frame that leaves no global state.

Colours are Okabe and Ito's (2008), told apart by all common forms of colour vision. matplotlib is
loaded by the first picture, never by importing this package, and pyplot is not used: a figure
belongs to its caller alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK, MUTED, LINE, WALL = "#22262b", "#6a717b", "#dfe2e6", "#40464f"
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#a2558b",
    "#56b4e9",
    "#b98a00",
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, INK)

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.dpi": 130.0,
    "savefig.dpi": 130.0,
    "figure.constrained_layout.use": True,
}


def drawn(make: Callable[P, Figure]) -> Callable[P, Figure]:
    """A picture's function, run in our style; settings of the caller are as before afterwards."""

    @functools.wraps(make)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return make(*args, **kwargs)

    return styled


def value_colours() -> Colormap:
    """From white to blue: greater is darker."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("value", ["#f7fafd", "#bcd9ee", "#5fa8d8", BLUE])


def pale_colours() -> Colormap:
    """As `value_colours`, but light enough to be written on everywhere."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", ["#f7fafd", "#d5e6f3", "#a3cde8"])


def decimals(values: NDArray[np.float64]) -> int:
    """Decimals that leave about three digits of the greatest value; none where all are whole."""
    finite = values[np.isfinite(values)]
    if np.allclose(finite, np.round(finite), rtol=0, atol=1e-6):
        return 0
    greatest = float(np.abs(finite).max(initial=0.0))
    return 0 if greatest >= 1000 else 1 if greatest >= 10 else 2 if greatest >= 1 else 3


def said(number: float, places: int) -> str:
    """A number with a true minus sign and without a negative zero."""
    text = f"{number:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
