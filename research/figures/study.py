"""Benefit and cost of GraM: results against k, and seconds of measuring."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.style import PAGE, colours, number_log_axis, seeds, style


def against_k(results: pd.DataFrame, quantity: str = "top-1, last epoch (%)") -> Figure:
    """``quantity`` at every k, beside plain training; and the difference to it.

    ``results`` is :func:`research.frames.gram.results_against_k`. Left: seeds as dots, mean and its 95 % interval.
    Right: GraM minus plain training with its 95 % interval, filled where the adjusted p is at most 0.05. The places on
    the axis are those of k in order, not its size; lines of one k stand side by side.

    Raises:
        UsageError: no run with GraM has finished.
    """
    if results["k"].isna().all():
        raise UsageError("no run with GraM has finished, so there is nothing to draw against k")
    lines = dict(list(results[results["k"].notna()].groupby(["setup", "method"])))
    ks = {k: place for place, k in enumerate(sorted(results["k"].dropna().unique()), start=1)}
    handles = []
    with style():
        height = 2.3 + 0.16 * len(lines)
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, height), layout="constrained")
        for place, ((setup, method), colour) in enumerate(zip(lines, colours(len(lines)), strict=True)):
            line, beside = lines[setup, method], 0.6 * ((place + 0.5) / len(lines) - 0.5)
            at = line["k"].map(ks) + beside
            for axis, y in ((left, "mean"), (right, "difference")):
                axis.plot(at, line[y], color=colour, linewidth=0.6, alpha=0.6)
            plain = results[results["k"].isna() & (results["setup"] == setup)]
            for x, row in zip(
                [*at, *(beside for _ in plain.index)], pd.concat([line, plain]).itertuples(), strict=True
            ):
                seeds(left, x, row.values, colour)
                _interval(left, x, (row.mean, row.mean_low, row.mean_high), colour)
                _interval(right, x, (row.difference, row.low, row.high), colour, filled=row.p_holm <= 0.05)
            label = " ".join(filter(None, (setup, method))) or "GraM"
            handles.append(Line2D([], [], color=colour, marker="o", label=label + _counted(line, plain)))
        right.axhline(0, color="0.3", linestyle="--", linewidth=0.8)
        places = {"plain": 0} | {f"{k:g}": place for k, place in ks.items()}
        for axis, label, first in ((left, quantity, 0), (right, "difference to plain training", 1)):
            axis.set_xticks(list(places.values())[first:], list(places)[first:])
            axis.set(xlabel="k", ylabel=label, xlim=(first - 0.5, len(ks) + 0.5))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        plt.close(figure)
    return figure


def _interval(axis: Axes, x: float, told: tuple[float, float, float], colour, filled: bool = True) -> None:
    middle, low, high = told
    axis.vlines(x, low, high, color=colour, linewidth=0.9)
    face = colour if filled else "white"
    axis.plot(x, middle, "o", color=colour, markerfacecolor=face, markersize=4, zorder=3)


def measuring_cost(cost: pd.DataFrame) -> Figure:
    """Seconds of each measurement, and its share of measuring and training, against epochs; median over runs.

    ``cost`` is :func:`research.frames.gram.gram_cost`. The band covers the middle half of the runs.

    Raises:
        UsageError: nothing was measured in an epoch that has ended.
    """
    if cost.empty:
        raise UsageError("no run has measured in an epoch that has ended, so there is no cost to draw")
    per_epoch = cost.assign(trained=cost["epoch"] + 1, share=100 * cost["share"]).groupby("trained")
    runs = cost["run"].nunique()
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.2), layout="constrained")
        for axis, column, label in zip(axes, ("seconds", "share"), ("seconds", "share of epoch (%)"), strict=True):
            middle = per_epoch[column].median()
            axis.plot(middle.index, middle, color=colours(1)[0], marker="o", label=f"median of {runs} runs")
            if runs > 1:
                low, high = per_epoch[column].quantile(0.25), per_epoch[column].quantile(0.75)
                axis.fill_between(middle.index, low, high, color=colours(1)[0], alpha=0.2, linewidth=0)
            axis.set(xlabel="epoch", ylabel=f"measuring, {label}", yscale="log")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            number_log_axis(axis.yaxis)
        if runs > 1:
            axes[1].legend()
        plt.close(figure)
    return figure


def _counted(line: pd.DataFrame, plain: pd.DataFrame) -> str:
    """How many seeds there are, of GraM and of plain training."""
    told = [
        f"{rows['n'].min()}" + (f"–{most}" if (most := rows["n"].max()) > rows["n"].min() else "")
        for rows in (line, plain)
        if len(rows)
    ]
    return f" (n = {told[0]}" + (f"; plain {told[1]})" if len(told) > 1 else "; no plain run)")
