"""Candidate networks: each score at initialisation against accuracy, and what each tells beyond the network's size."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research.figures.legends import legend_below
from research.figures.style import PAGE, TALLEST, colours, number_log_axis, style
from research.frames.candidates import MEASURES

LOG = ("params", "mult_adds", "gradient_norm")  # axes of ratios
MARKERS = "osD^vP*"


def scores_against_accuracy(table: pd.DataFrame) -> Figure:
    """Error of every arm of :func:`~research.frames.candidates.measured` against each measure that varies.

    A dot an arm, the mean of its seeds; its colour the parameters.
    """
    means = table.groupby("arm", sort=False)[[*MEASURES, "top1"]].mean().dropna(subset=["top1"])
    finite = means.replace([np.inf, -np.inf], np.nan)
    error = (100 - means["top1"]).clip(lower=0.01)  # none has no place on the axis
    names = [name for name in MEASURES if finite[name].nunique() > 1] or ["params"]
    rows = -(-len(names) // 3)
    scale = mpl.colors.LogNorm(*_apart(means["params"]))
    with style():
        figure, axes = plt.subplots(rows, 3, figsize=(PAGE, 0.6 + 1.7 * rows), sharey=True, layout="constrained")
        for axis, name in zip(axes.flat, names, strict=False):
            axis.scatter(finite[name], error, c=means["params"], norm=scale, s=14, linewidth=0, cmap="viridis")
            axis.set_xlabel(MEASURES[name])
            if name in LOG and finite[name].min() > 0:
                axis.set_xscale("log")
        for axis in axes.flat[len(names) :]:
            axis.set_axis_off()
        axes = axes.reshape(rows, 3)
        axes[0, 0].set_yscale("log")
        number_log_axis(axes[0, 0].yaxis)
        figure.supylabel("top-1 error, last epoch (%)", size=8)
        bar = figure.colorbar(mpl.cm.ScalarMappable(scale, "viridis"), ax=axes, label="parameters", pad=0.01, aspect=40)
        number_log_axis(bar.ax.yaxis, "{:,g}".format)
        plt.close(figure)
    return figure


def trust_intervals(found: Mapping[str, pd.DataFrame]) -> Figure:
    """Rank correlations with top-1 of :func:`~research.frames.candidates.trust`, a study a colour and marker.

    Left each measure alone, right with parameters and mult-adds taken out; 95 % intervals.
    """
    names = [name for name in MEASURES if any(name in table["measure"].values for table in found.values())]
    places = {name: place for place, name in enumerate(reversed(names))}
    panels = {"alone": ("alone", "low", "high")}
    panels |= {"given parameters and mult-adds": ("given_size", "given_low", "given_high")}
    with style():
        size = (PAGE, min(TALLEST - 1, 0.6 + 0.15 * len(names) * (1 + 0.5 * len(found))))
        figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        for axis, (title, (value, low, high)) in zip(axes, panels.items(), strict=True):
            axis.axvline(0, color="0.5", linewidth=0.8)
            for index, ((study, table), colour) in enumerate(zip(found.items(), colours(len(found)), strict=True)):
                shift = 0.28 * (len(found) - 1 - 2 * index) / max(len(found) - 1, 1)
                rows = table.dropna(subset=[value])
                across = np.clip([rows[value] - rows[low], rows[high] - rows[value]], 0, None)
                axis.errorbar(
                    rows[value],
                    [places[name] + shift for name in rows["measure"]],
                    xerr=np.nan_to_num(across),
                    fmt=MARKERS[index % len(MARKERS)],
                    color=colour,
                    linewidth=1,
                    label=f"{study}, n = {int(table['n'].max())}",
                )
            axis.set(xlim=(-1.05, 1.05), xlabel=f"Spearman's correlation with top-1,\n{title}")
        axes[0].set_yticks([*places.values()], [MEASURES[name] for name in places])
        legend_below(figure, axes[0].get_legend_handles_labels()[0], "95 % intervals")
        plt.close(figure)
    return figure


def _apart(values: pd.Series) -> tuple[float, float]:
    """The range of ``values``, wide enough for a colour scale."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low / 2, high * 2)
