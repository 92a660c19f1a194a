"""Calibration of runs: confidence against accuracy, and the losses of z and of alpha z."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.figures.legends import legend_above, legend_below, scale_beside, tell_apart
from research.figures.style import COLUMN, FEW, PAGE, colours, style
from research.measures.calibration import Reliability

FEWEST = 10  # samples of a bin that is drawn


def reliability_diagram(raw: Mapping[float, Reliability], scaled: Mapping[float, Reliability]) -> Figure:
    """Accuracy against confidence, a colour for each alpha: softmax(z) left, softmax(alpha z) right.

    Below the diagonal the network is over-confident. Bars are binomial standard errors, a dot's area is its bin's share
    of the samples; bins of fewer than 10 samples count in the calibration error (ECE) but are not drawn.
    """
    palette = dict(zip(raw, colours(len(raw)), strict=True))
    sides = {"softmax(z)": raw, "softmax($\\alpha$ z)": scaled}
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 3.9), layout="constrained", sharey=True)
        for axis, (name, by_alpha) in zip(axes, sides.items(), strict=True):
            axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.8)
            for alpha, found in by_alpha.items():
                _reliability(axis, found, palette[alpha], f"$\\alpha$ = {alpha:g}: ECE {100 * found.error:.1f} %")
            axis.set(xlabel=f"confidence, {name}", xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
            if len(by_alpha) <= FEW:
                legend_above(axis, columns=2)
        axes[0].set_ylabel("accuracy")
        if len(raw) > FEW:
            scale_beside(figure, axes, list(raw), "$\\alpha$")
        legend_below(figure, _explained())
        plt.close(figure)
    return figure


def confidence_and_accuracy(found: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence of any runs (name -> its reliability), drawn as :func:`reliability_diagram` does."""
    lines = tell_apart(dict.fromkeys(found, ""))
    with style():
        figure, axis = plt.subplots(figsize=(COLUMN, 3.0), layout="constrained")
        axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.8)
        for name, each in found.items():
            _reliability(axis, each, lines.looks[name].colour, name)
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
        for handle in lines.handles:
            handle.set_label(f"{handle.get_label()}: ECE {100 * found[handle.get_label()].error:.1f} %")
        legend_below(figure, [*_explained(), *(lines.groups or lines.handles)])
        plt.close(figure)
    return figure


def _explained() -> list[Line2D]:
    area = {"color": "0.3", "alpha": 0.3, "linewidth": 0, "marker": "o", "markersize": 9}
    return [
        Line2D([], [], color="0.5", linestyle="--", linewidth=0.8, label="calibrated"),
        Line2D([], [], color="0.3", linewidth=0.8, label="bar: binomial standard error"),
        Line2D([], [], label="area: share of samples", **area),
    ]


def _reliability(axis: Axes, found: Reliability, colour, name: str) -> None:
    drawn = found.count >= FEWEST
    confidence, accuracy, count = (values[drawn] for values in (found.confidence, found.accuracy, found.count))
    error = np.sqrt(accuracy * (1 - accuracy) / count)
    axis.errorbar(confidence, accuracy, error, color=colour, marker="o", linestyle="", elinewidth=0.8, label=name)
    axis.scatter(confidence, accuracy, s=300 * count / found.count.sum(), color=colour, alpha=0.3, linewidth=0)


def calibration_by_alpha(table: pd.DataFrame) -> Figure:
    """Validation cross-entropy and expected calibration error of z (filled) and alpha z (open) for each alpha.

    ``table``: a row a run with network, alpha, ``loss``, ``loss_scaled`` (nats), ``ece``, ``ece_scaled`` (0..1). Mean
    and standard deviation over runs; a colour for each network.
    """
    alphas, networks = sorted(table["alpha"].unique(), reverse=True), list(table["network"].unique())
    place = {alpha: at for at, alpha in enumerate(alphas)}
    lines = tell_apart(dict.fromkeys(networks, ""))
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.1), layout="constrained")
        for row, (network, (colour, *_)) in enumerate(lines.looks.items()):
            rows = table[table["network"] == network].groupby("alpha")
            for axis, name, factor in ((axes[0], "loss", 1), (axes[1], "ece", 100)):
                for side, suffix, face in ((0, "", colour), (1, "_scaled", "white")):
                    found = factor * rows[name + suffix].agg(["mean", "std"]).fillna(0)
                    shift = (2 * row + side + 0.5 - len(networks)) * 0.4 / max(3, len(networks))
                    at = np.array([place[alpha] for alpha in found.index]) + shift
                    look = {"color": colour, "markerfacecolor": face, "marker": "o", "linestyle": "", "capsize": 2}
                    axis.errorbar(at, found["mean"], found["std"], elinewidth=0.8, **look)
        for axis, label in zip(axes, ("cross-entropy (nats)", "expected calibration error (%)"), strict=True):
            axis.set(xlabel="$\\alpha$", ylabel=label, ylim=(0, None), xlim=(-0.5, len(alphas) - 0.5))
            axis.set_xticks(range(len(alphas)), labels=[f"{alpha:g}" for alpha in alphas])
        fills = {"softmax(z)": "0.3", "softmax($\\alpha$ z)": "white"}
        handles = [
            Line2D([], [], color="0.3", markerfacecolor=fill, marker="o", linestyle="", label=name)
            for name, fill in fills.items()
        ]
        networks = lines.groups if lines.crowded else lines.handles
        legend_below(figure, [*handles, *networks], "mean ± s.d. over runs")
        plt.close(figure)
    return figure
