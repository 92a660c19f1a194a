"""One style for every figure: paper widths, 8 pt, colours that colour-blind readers can tell apart, no titles."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from research.files import write_new

COLUMN = 3.3  # inches: one column of a paper
PAGE = 6.8  # both columns
TALLEST = 9.0

# Okabe and Ito's palette, yellow (too light on white) left out
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE = {
    "figure.dpi": 130,  # on screen
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # text stays text
    "image.interpolation": "nearest",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style without changing anybody's defaults."""
    with mpl.rc_context(STYLE):
        yield


def colours(count: int) -> Sequence[str | tuple[float, ...]]:
    """``count`` colours: the palette while it lasts, then even steps of a perceptual map."""
    return PALETTE[:count] if count <= len(PALETTE) else ramp(count)


def ramp(count: int) -> Sequence[tuple[float, ...]]:
    """``count`` colours for ordered things such as depth, dark to light."""
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.9, count))]


def seeds(axis: Axes, at: float, values: Iterable[float], colour) -> None:
    """Every seed as a dot at ``at``, since a mean and a deviation hide it where seeds fall into two groups."""
    values = list(values)
    axis.scatter([at] * len(values), values, s=8, color=colour, alpha=0.6, linewidth=0, zorder=2)


def number_log_axis(axis: Axis, written: Callable[[float], str] = "{:g}".format) -> None:
    """Numbers at 1, 2 and 5 times the powers of ten, written out, on a logarithmic ``axes.xaxis`` or ``axes.yaxis``.

    Call it after drawing: a range between two of these numbers is widened to them, so that every axis has some.
    """
    low, high = sorted(axis.get_view_interval())
    ticks = np.outer(10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2), [1, 2, 5]).ravel()
    if ((low <= ticks) & (ticks <= high)).sum() < 2:
        low, high = ticks[ticks <= low].max() / 1.02, ticks[ticks >= high].min() * 1.02
        getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: written(value))
    axis.set_minor_formatter(NullFormatter())


def render(figure: Figure) -> dict[str, bytes]:
    """The figure as PNG (300 dots per inch) and PDF: suffix -> bytes."""
    contents = {}
    with style():
        for suffix in (".png", ".pdf"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], dpi=300)
            contents[suffix] = buffer.getvalue()
    return contents


def save(figure: Figure, folder: Path | str, name: str) -> Path:
    """Write ``folder/name.png`` and ``.pdf`` (``name-2`` … when taken; nothing is replaced); the PNG's path."""
    stem = write_new(Path(folder) / name, render(figure))
    return stem.with_name(f"{stem.name}.png")
