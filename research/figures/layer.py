"""One layer at one moment, of one run or of two side by side: weights, mask, singular values, NMI, multiplier, cost."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research.figures.correlation import MULTIPLIER, heat
from research.figures.style import PAGE, PALETTE, style
from research.frames.gram import GramLayer
from research.trained.kept import LayerState

NUMBERS = 25  # taps of a kernel at most, for their numbers to have room in a panel


@dataclass(frozen=True)
class LayerView:
    """A layer as it is drawn; what there is no record of is none, and told in words instead."""

    title: str
    state: LayerState | None = None
    initial: LayerState | None = None  # before training, to compare singular values with
    gram: GramLayer | None = None
    k: float = 1.0  # of the NMI
    no_state: str = ""
    no_gram: str = ""


def layer_views(views: Sequence[LayerView]) -> Figure:
    """Six panels of each view, with its cost in a line above; two views stand side by side.

    Weights are drawn as the matrix (out, in x taps), all views in one scale, and singular values are those of this
    matrix. Panels keep their places whatever is in them, so that one can leaf through epochs.
    """
    rows, columns = (2, 3) if len(views) == 1 else (3, 2)
    states = [view.state for view in views if view.state]
    extreme = max((np.quantile(np.abs(state.weight), 0.995) for state in states), default=0.0) or 1.0
    height, width = 0.6 + 1.75 * rows, PAGE / len(views)
    with style():
        figure = plt.figure(figsize=(PAGE, height))
        for number, view in enumerate(views):
            left, right = number * width + 0.5, (number + 1) * width - 0.55
            edges = {"left": left / PAGE, "right": right / PAGE, "bottom": 0.55 / height, "top": 1 - 0.8 / height}
            grid = figure.add_gridspec(rows, columns, **edges, wspace=0.9, hspace=0.75)
            told = "\n".join([view.title, *textwrap.wrap(_cost(view.state), 110 // len(views))])
            figure.text((left + right) / 2 / PAGE, 1 - 0.05 / height, told, ha="center", va="top")
            for place, panel in zip(grid, PANELS, strict=True):
                panel(figure.add_subplot(place), view, extreme)
        plt.close(figure)
    return figure


def _cost(state: LayerState | None) -> str:
    if state is None:
        return ""
    row, total = state.row, state.cost.mult_adds
    active = f", {row.nonzeros:,} not zero" if row.nonzeros < row.params else ""
    return f"{row.params:,} parameters{active}; {row.mult_adds:,.0f} of {total:,.0f} multiply-adds"


def _weights(axis: Axes, view: LayerView, extreme: float) -> None:
    if view.state is None:
        return _say(axis, view.no_state)
    look = "RdBu_r", Normalize(-extreme, extreme)
    _matrix(axis, view.state.weight, *look)
    axis.set(xlabel="input x tap", ylabel="output")
    _scale(axis, *look, "weight", (-extreme, 0, extreme), digits=2)


def _singular_values(axis: Axes, view: LayerView, extreme: float) -> None:
    if view.state is None:
        return axis.set_axis_off()
    for state, colour, label in ((view.initial, "0.6", "at first"), (view.state, PALETTE[1], "now")):
        if state is not None:
            values = state.singular_values
            axis.plot(np.arange(1, len(values) + 1), values, color=colour, label=f"{label}, mean {values.mean():.2g}")
    axis.set(xlabel="number", ylabel="singular value", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.legend(fontsize=6, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, handlelength=1)


def _histogram(axis: Axes, view: LayerView, extreme: float) -> None:
    if view.state is None:
        return axis.set_axis_off()
    state = view.state
    values = state.weight.ravel() if state.mask is None else state.weight[state.mask]
    axis.hist(values, np.linspace(-1.5 * extreme, 1.5 * extreme, 61), color=PALETTE[0])
    axis.set(xlabel="weight" if state.mask is None else "active weight", ylabel="count")


def _mask(axis: Axes, view: LayerView, extreme: float) -> None:
    if view.state is None:
        return axis.set_axis_off()
    if view.state.mask is None:
        return _say(axis, "no mask: every weight is active")
    _matrix(axis, view.state.mask.astype(float), ListedColormap(["white", PALETTE[0]]), Normalize(0, 1))
    axis.set(xlabel=f"input x tap\n{view.state.mask.mean():.2%} active", ylabel="output")


def _nmi(axis: Axes, view: LayerView, extreme: float) -> None:
    if view.gram is None:
        return _say(axis, view.no_gram)
    look = "viridis", Normalize(0, 1)
    heat(axis, view.gram.corr, *look, written=view.gram.corr.size <= NUMBERS)
    axis.set_axis_off()
    _scale(axis, *look, f"NMI-{view.k:g}", (0, 0.5, 1))


def _multiplier(axis: Axes, view: LayerView, extreme: float) -> None:
    axis.set_axis_off()
    if view.gram is not None:
        label, cmap, norm = MULTIPLIER
        heat(axis, view.gram.multiplier, cmap, norm, written=view.gram.multiplier.size <= NUMBERS)
        _scale(axis, cmap, norm, label, (norm.vmin, 1, norm.vmax))


PANELS = (_weights, _singular_values, _histogram, _mask, _nmi, _multiplier)


def _say(axis: Axes, text: str) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, textwrap.fill(text, 24), transform=axis.transAxes, ha="center", va="center", fontsize=7)


def _matrix(axis: Axes, values: np.ndarray, cmap: str | Colormap, norm: Normalize) -> None:
    axis.imshow(values.reshape(len(values), -1), cmap, norm, aspect="auto", interpolation="auto")
    axis.grid(False)
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_locator(MaxNLocator(4, integer=True))


def _scale(axis: Axes, cmap: str, norm: Normalize, label: str, ticks: Sequence[float], digits: int = 3) -> None:
    bar = axis.figure.colorbar(ScalarMappable(norm, cmap), cax=axis.inset_axes([1.06, 0, 0.07, 1]))
    bar.ax.set_title(label, fontsize=6, pad=4)
    bar.outline.set_visible(False)
    bar.set_ticks(ticks, labels=[f"{tick:.{digits}g}" for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=6)
