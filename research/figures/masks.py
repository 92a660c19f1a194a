"""Arms seed by seed, with the units that live in each network; and numbers at initialisation against accuracy.

Frames are those of :mod:`research.frames.plans` and :mod:`research.frames.masks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.errors import UsageError
from research.figures.legends import legend_below, scale_beside, shortened
from research.figures.style import COLUMN, FEW, PAGE, RED, number_log_axis, ramp, style
from research.frames.comparison import mean_interval
from research.frames.masks import PREDICTORS

TICKS = 40  # names below a page
APART = 0.34  # of the distance of two arms: how far its seeds stand apart, in the order of the seeds


def seeds_by_arm(table: pd.DataFrame, arms: Sequence[str] = (), living: str = "living_1") -> Figure:
    """Error of every run of :func:`~research.frames.plans.runs_by_arm`, an arm a column: a dot a seed, its colour the
    ``living`` units; circles are the first result, diamonds the fresh seeds. Bars: mean and 95 % interval over
    all seeds of the arm (Student's t). Within a column seeds stand in their order and have no other place.

    ``arms`` are those to draw, in order; all without.

    Raises:
        UsageError: there is no run.
    """
    names = list(arms or dict.fromkeys(table["arm"]))
    table = table[table["arm"].isin(names)]
    if table.empty:
        raise UsageError("there is no finished run to draw")
    shades = mpl.colormaps["viridis"]
    scale = mpl.colors.Normalize(0, table[living].max() if living in table else 1)
    with style():
        figure, axis = plt.subplots(figsize=(PAGE if len(names) > 4 else COLUMN, 3.6), layout="constrained")
        for place, name in enumerate(names):
            rows = table[table["arm"] == name].sort_values(["fresh", "seed"])
            across = place + APART * np.linspace(-1, 1, len(rows)) if len(rows) > 1 else [place]
            for x, row in zip(across, rows.itertuples(), strict=True):
                alive = getattr(row, living, np.nan)
                colour = "0.6" if np.isnan(alive) else shades(scale(alive))
                axis.plot(
                    x, 100 - row.top1, "D" if row.fresh else "o", color=colour, markersize=3.5, mew=0.3, mec="0.2"
                )
            _interval(axis, place, 100 - rows["top1"])
        step = -(-len(names) // TICKS)
        told = [shortened(name, 26) for name in names[::step]]
        axis.set_xticks(range(0, len(names), step), told, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_xlabel("" if step == 1 else f"one of {step} arms is named")
        axis.set(yscale="log", ylabel="top-1 error, last epoch (%)")
        number_log_axis(axis.yaxis)
        if living in table:
            told = "living units, first hidden layer"
            figure.colorbar(mpl.cm.ScalarMappable(scale, shades), ax=axis, label=told, pad=0.01)
        handles = [Line2D([], [], marker="o", color="0.4", linewidth=0, label="a seed")]
        if table["fresh"].any():
            handles.append(Line2D([], [], marker="D", color="0.4", linewidth=0, label="a fresh seed"))
        handles.append(Line2D([], [], color="0.2", marker="_", label="mean, 95 % interval"))
        legend_below(figure, handles)
        plt.close(figure)
    return figure


def _interval(axis: Axes, place: float, values: pd.Series) -> None:
    """Mean of ``values`` at ``place``, with its 95 % interval where there are several."""
    mean, low, high = mean_interval(values)
    if not np.isnan(low):
        lower = min(mean - low, 0.9 * mean)  # an error below 0 has no place on the axis
        bars = [[lower], [high - mean]]
        axis.errorbar(place, mean, bars, color="0.2", marker="_", markersize=9, linewidth=0.9, zorder=1)


def numbers_at_start(table: pd.DataFrame, others: pd.DataFrame | None = None) -> Figure:
    """Error of the last epoch (log odds) against every predictor of :func:`~research.frames.masks.mask_numbers`.

    A dot a run, its colour the distribution of the weights over the layers (exponent), its size the active weights;
    crosses are ``others``, whose masks no distribution made.
    """
    powers = sorted(table["power"].unique())
    shades = dict(zip(powers, ramp(len(powers)), strict=True))
    with style():
        figure, axes = plt.subplots(2, 3, figsize=(PAGE, 4.2), sharey=True, layout="constrained")
        for axis, (name, label) in zip(axes.flat, PREDICTORS.items(), strict=True):
            for power, rows in table.groupby("power"):
                size = 4 + 14 * (rows["log_active"] - table["log_active"].min())
                axis.scatter(rows[name], rows["log_odds"], s=size, color=shades[power], linewidth=0)
            if others is not None and len(others):
                axis.plot(others[name], others["log_odds"], "x", color=RED, markersize=4, mew=0.8)
            axis.set_xlabel(label)
        for axis in axes[:, 0]:
            axis.set_ylabel("log odds of an error")
        handles = [Line2D([], [], marker="o", linewidth=0, color=c, label=f"exponent {p:g}") for p, c in shades.items()]
        if len(powers) > FEW:
            scale_beside(figure, axes, powers, "exponent")
            handles = []
        if others is not None and len(others):
            handles.append(Line2D([], [], marker="x", linewidth=0, color=RED, label="copied masks"))
        legend_below(figure, handles)
        plt.close(figure)
    return figure
