"""Do methods add up? Their effect together beside the sum of their own effects, and the interactions."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.errors import UsageError
from research.figures.legends import legend_below, shortened
from research.figures.style import BLUE, ORANGE, PAGE, TALLEST, style

APART = 0.18  # of the distance of two rows: what one row shows twice


def effects_together(
    together: pd.DataFrame, averaged: pd.DataFrame, margin: float = 0.0, quantity: str = "top-1 (points)"
) -> Figure:
    """A row for every arm of several methods. Left: its effect, and the sum of what its methods do alone.

    Right: the interaction, which is the difference of these two, and of pairs its mean over all backgrounds; with 95 %
    intervals, filled where the adjusted p is at most 0.05. The band is ±``margin``: less does not matter.

    ``together`` and ``averaged`` are ``added_up`` and ``interactions`` of
    :mod:`research.frames.statistics.interactions`.

    Raises:
        UsageError: no arm has several methods that have arms of their own.
    """
    if together.empty:
        raise UsageError("no arm has several methods that have arms of their own: nothing can add up")
    places = {arm: place for place, arm in enumerate(together["arm"])}
    with style():
        figure, (left, right) = plt.subplots(
            1, 2, sharey=True, figsize=(PAGE, min(TALLEST - 0.5, 0.7 + 0.24 * len(places))), layout="constrained"
        )
        y = list(places.values())
        left.hlines(y, together["mean"], together["mean_against"], color="0.6", linewidth=0.8)
        left.plot(together["mean_against"], y, "D", color="0.3", mfc="white", markersize=4)
        left.plot(together["mean"], y, "o", color=BLUE, markersize=4)
        if margin:
            right.axvspan(-margin, margin, color="0.92", linewidth=0)
        _intervals(right, [place - APART for place in y], together, BLUE)
        pairs = averaged["arm"].astype(str).str.replace(" with ", "+").map(places)
        _intervals(right, pairs + APART, averaged, ORANGE)
        small = min(7, 45 * (figure.get_figheight() - 0.7) / len(places))  # points of a row
        left.set_yticks(y, [shortened(name, 40) for name in places], fontsize=small)
        left.invert_yaxis()
        for axis, label in ((left, f"effect on {quantity}"), (right, f"interaction, {quantity}")):
            axis.axvline(0, color="0.3", linestyle="--", linewidth=0.8)
            axis.set_xlabel(label)
        told = {"together": ("o", BLUE, BLUE), "sum of each alone": ("D", "0.3", "white")}
        told |= {"beside the base": ("o", BLUE, BLUE), "mean over all backgrounds": ("o", ORANGE, ORANGE)}
        handles = [
            Line2D([], [], marker=m, color=c, mfc=face, linewidth=0, markersize=4, label=label)
            for label, (m, c, face) in told.items()
        ]
        legend_below(figure, handles, "left: the first two; right: the others, with 95 % intervals")
        plt.close(figure)
    return figure


def _intervals(axis: Axes, places, rows: pd.DataFrame, colour: str) -> None:
    for y, row in zip(places, rows.itertuples(), strict=True):
        axis.hlines(y, row.low, row.high, color=colour, linewidth=1)
        axis.plot(row.difference, y, "o", color=colour, mfc=colour if row.p_holm <= 0.05 else "white", markersize=4)
