"""Calibration of runs: confidence against accuracy, and the losses of z and of alpha z."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.figures.style import PAGE, colours, style
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
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 3.6), layout="constrained", sharey=True)
        for axis, (name, by_alpha) in zip(axes, sides.items(), strict=True):
            axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.8)
            for alpha, found in by_alpha.items():
                _reliability(axis, found, palette[alpha], f"$\\alpha$ = {alpha:g}: ECE {100 * found.error:.1f} %")
            axis.set(xlabel=f"confidence, {name}", xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
            axis.legend(loc="upper left")
        axes[0].set_ylabel("accuracy")
        plt.close(figure)
    return figure


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
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.4 + 0.14 * len(networks)), layout="constrained")
        for row, (network, colour) in enumerate(zip(networks, colours(len(networks)), strict=True)):
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
        handles = [Line2D([], [], color=c, label=n) for n, c in zip(networks, colours(len(networks)), strict=True)]
        fills = {"softmax(z)": "0.3", "softmax($\\alpha$ z)": "white"}
        handles += [
            Line2D([], [], color="0.3", markerfacecolor=fill, marker="o", linestyle="", label=name)
            for name, fill in fills.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        plt.close(figure)
    return figure
