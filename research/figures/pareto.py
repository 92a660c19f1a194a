"""Error against what networks cost, with the configurations that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.errors import UsageError
from research.figures.legends import NAMED, legend_below, spread
from research.figures.style import BLUE, FEW, PAGE, colours, number_log_axis, seeds, style
from research.frames.budgets import COSTS, front

GREY = "0.65"
GAP, NEAR = 0.052, 0.035  # between two labels, and of one from its mean: shares of a panel
SHORT = 30.0  # an axis over less than this factor has numbers, not powers of ten


def pareto_fronts(points: pd.DataFrame, costs: Sequence[str] = tuple(COSTS)) -> Figure:
    """Top-1 error of the last epoch against each of ``costs``, both logarithmic; the front is a line of steps.

    ``points`` are those of :func:`research.frames.budgets.priced`. Dots are seeds, a bar is their mean, and a number
    names the configuration. What is on a front has its colour there (one for all where they are more than eight), and
    is grey where another configuration beats it. Of more than 24 configurations only those on a front have numbers.
    Costs that no run has are left out.

    Raises:
        UsageError: there is no error with a known cost.
    """
    fronts = {cost: table for cost in costs if len(table := front(points, cost))}
    if not fronts or not (points["top1_err"] > 0).any():
        raise UsageError("there is no error with a known cost to draw")
    first = next(iter(fronts.values()))
    winners = [name for name in first.index if any(table["best"].get(name, False) for table in fronts.values())]
    named = winners[: 2 * NAMED] if len(first) > 2 * NAMED else first.index
    numbers = {name: str(place) for place, name in enumerate(named, start=1)}
    many = len(winners) > FEW
    looks = dict.fromkeys(winners, BLUE) if many else dict(zip(winners, colours(len(winners)), strict=True))
    with style():
        rows = -(-len(fronts) // 2)
        figure, axes = plt.subplots(
            rows, 2 if len(fronts) > 1 else 1, figsize=(PAGE, 2.4 * rows), sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, cost in zip(axes.flat, fronts, strict=False):
            axis.set(xscale="log", yscale="log", xlabel=COSTS[cost])
            _scaled(axis, points[cost].dropna(), points["top1_err"])
        for axis, (cost, table) in zip(axes.flat, fronts.items(), strict=False):
            _panel(axis, points.dropna(subset=cost), cost, table, numbers, looks)
        for axis in axes.flat[len(fronts) :]:
            axis.remove()
        for axis in axes[:, 0]:
            axis.set_ylabel("top-1 error (%)")
        handles = [
            Line2D([], [], linewidth=0, marker=f"${number}$", markersize=5, color=looks.get(name, GREY), label=name)
            for name, number in numbers.items()
        ]
        if len(numbers) < len(first):
            rest = f"{len(first) - len(numbers)} others"
            handles.append(Line2D([], [], linewidth=0, marker="_", markersize=7, color=GREY, label=rest))
        front_line = Line2D([], [], color="0.3", linewidth=0.8, label="front")
        seed = Line2D([], [], linewidth=0, marker="o", markersize=2.5, color="0.3", alpha=0.6, label="a seed")
        mean = Line2D([], [], linewidth=0, marker="_", markersize=7, markeredgewidth=1.3, color="0.3", label="mean")
        legend_below(figure, [*handles, front_line, seed, mean])
        plt.close(figure)
    return figure


def _scaled(axis: Axes, costs: pd.Series, errors: pd.Series) -> None:
    """Limits that have room for labels; errors of all panels share theirs, and one of 0 has no place."""
    low, high = costs.min(), costs.max()
    axis.set_xlim(low / 1.15, 1.15 * high * (high / low) ** 0.1)
    axis.set_ylim(errors[errors > 0].min() / 1.1, errors.max() * 1.1)


def _panel(
    axis: Axes, points: pd.DataFrame, cost: str, table: pd.DataFrame, numbers: dict[str, str], looks: dict
) -> None:
    best = table[table["best"]]
    axis.step(best[cost], best["top1_err"], where="post", color="0.3", linewidth=0.8, zorder=1)
    for name, row in table[::-1].iterrows():  # the cheapest on top
        colour = looks[name] if row["best"] else GREY
        for x, error in points.loc[points["configuration"] == name, [cost, "top1_err"]].to_numpy():
            seeds(axis, x, [error], colour)
        axis.plot(row[cost], row["top1_err"], marker="_", markersize=7, markeredgewidth=1.3, color=colour, zorder=3)
    if table[cost].max() < SHORT * table[cost].min():
        number_log_axis(axis.xaxis)
    number_log_axis(axis.yaxis)
    table = table[table.index.isin(numbers)]
    places = pd.DataFrame({"x": _fraction(axis, "x", table[cost]), "y": _fraction(axis, "y", table["top1_err"])})
    for name, (x, y) in places.assign(y=_apart(places)).iterrows():
        row = table.loc[name]
        axis.annotate(
            numbers[name], (row[cost], row["top1_err"]), (x + NEAR, y), textcoords="axes fraction", va="center",
            fontsize=6, fontweight="bold" if row["best"] else "normal", color="black" if row["best"] else "0.45",
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": GREY, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def _fraction(axis: Axes, which: str, values: pd.Series) -> pd.Series:
    """Where ``values`` lie along a logarithmic axis, as shares of its length."""
    low, high = np.log(getattr(axis, f"get_{which}lim")())
    return (np.log(values) - low) / (high - low)


def _apart(places: pd.DataFrame) -> pd.Series:
    """Heights for labels at ``places`` (x, y), such that those of one x do not cover each other."""
    found = places["y"].copy()
    column = (places["x"].sort_values().diff() > NEAR).cumsum()
    for _, part in found.groupby(column):
        found[part.index] = spread(part, GAP)
    return found
