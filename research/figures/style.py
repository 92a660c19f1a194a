"""One style for every figure: paper widths, 8 pt, one look a method, no titles."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from research.files import write_new

COLUMN = 3.3  # inches: one column of a paper
PAGE = 6.8  # both columns
TALLEST = 9.0
FEW = 8  # configurations that colours tell apart; of more, figures group them or name them at the ends of their lines

# Okabe and Ito's palette without yellow (too light on white), and five that are further from it and each other than its
# own two nearest, for readers who see all colours and for those who do not (measured in tests/figures/test_styles.py)
BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"
BROWN, INDIGO, SLATE, LIME, CRIMSON = "#78240C", "#332288", "#244854", "#78C06C", "#C03C48"
PALETTE = (BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK, BROWN, INDIGO, SLATE, LIME, CRIMSON)
STYLE = {
    "figure.dpi": 130,  # on screen
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 3,  # two periods of every dash
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


class Look(NamedTuple):
    """How a method is drawn in every figure: either alone tells it from the others of its kind."""

    colour: str
    marker: str
    name: str = ""  # as papers write it


SPARSE = {  # methods of sparse training
    "dense": Look(BLACK, "*", "dense"),
    "small": Look(SLATE, "8", "small dense"),
    "static_sparse": Look(BLUE, "o", "static sparse"),
    "deepr": Look(PINK, "v", "DeepR"),
    "set": Look(ORANGE, "s", "SET"),
    "l3": Look(CRIMSON, "p", "L3"),
    "rigl": Look(GREEN, "^", "RigL"),
    "itop": Look(LIME, "<", "ITOP"),
    "snfs": Look(SKY, ">", "SNFS"),
    "dsr": Look(RED, "D", "DSR"),
    "prune": Look(INDIGO, "P", "pruning"),
    "tied": Look(BROWN, "X", "tied"),
}
FAMILIES = {  # what stands in for a convolution
    "dense": Look(BLACK, "*", "dense"),
    "generic": Look(BLUE, "H", "generic"),
    "tt": Look(RED, "s", "tensor train"),
    "tucker": Look(GREEN, "D", "Tucker"),
    "shuffle": Look(PINK, "^", "shuffle"),
    "sephashed": Look(SKY, "v", "separable hashed"),
    "acdc": Look(ORANGE, "P", "ACDC"),
    "sep": Look(SLATE, "h", "separable"),
    "hashed": Look(BROWN, "d", "hashed"),
    "cp": Look(LIME, "X", "CP"),
    "lr": Look(INDIGO, ">", "tied low rank"),
    "bottleneck": Look(CRIMSON, "8", "grouped bottleneck"),
}
OTHERS = {  # what changes the training of any network
    "gram": Look(CRIMSON, "H", "GraM"),
    "power_grad": Look(GREEN, "8", "PowerGrad"),
    "distill": Look(INDIGO, "p", "distilled"),
}
LOOKS = {**SPARSE, **FAMILIES, **OTHERS}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style without changing anybody's defaults."""
    with mpl.rc_context(STYLE):
        yield


def look(method: str) -> Look:
    """The look of a method; grey of one that has none of its own."""
    return LOOKS.get(method, Look("0.35", "p", method))


def looks(methods: Mapping[str, str]) -> dict[str, Look]:
    """A look for each of at most ``len(PALETTE)`` configurations, given its method.

    It is the method's where no other configuration has that method; the others take what colours are left.
    """
    count, own = Counter(methods.values()), {}
    for name, method in methods.items():
        taken = {each.colour for each in own.values()}
        if count[method] == 1 and method in LOOKS and LOOKS[method].colour not in taken:
            own[name] = LOOKS[method]
    taken = {each.colour for each in own.values()}
    left = iter([colour for colour in PALETTE if colour not in taken])
    return {name: own[name] if name in own else Look(next(left), "o", name) for name in methods}


def colours(count: int) -> Sequence[str | tuple[float, ...]]:
    """``count`` colours for the values of one quantity: the palette while they are few, then even steps of a ramp."""
    return PALETTE[:count] if count <= FEW else ramp(count)


def ramp(count: int) -> Sequence[tuple[float, ...]]:
    """``count`` colours for ordered things such as depth, dark to light."""
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0, 0.9, count))]


def seeds(axis: Axes, at: float, values: Iterable[float], colour) -> None:
    """Every seed as a dot at ``at``, since a mean and a deviation hide it where seeds fall into two groups."""
    values = list(values)
    axis.scatter([at] * len(values), values, s=8, color=colour, alpha=0.6, linewidth=0, zorder=2)


def number_log_axis(axis: Axis, written: Callable[[float], str] = "{:g}".format) -> None:
    """Numbers at 1, 2 and 5 times the powers of ten, written out, on a logarithmic ``axes.xaxis`` or ``axes.yaxis``.

    Call it after drawing: a range that holds fewer than two of these has every digit, a still shorter one even steps.
    """
    low, high = sorted(axis.get_view_interval())
    decades = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    for digits in ((1, 2, 5), range(1, 10)):
        ticks = np.outer(decades, digits)
        if ((low <= ticks) & (ticks <= high)).sum() >= 2:
            axis.set_major_locator(LogLocator(subs=digits, numticks=20))
            break
    else:
        axis.set_major_locator(MaxNLocator(4))
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
