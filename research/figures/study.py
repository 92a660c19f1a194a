"""Benefit and cost of GraM: results against k, and seconds of measuring."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from research.errors import UsageError
from research.figures.style import PAGE, colours, number_log_axis, style


def against_k(results: pd.DataFrame, quantity: str = "best top-1 (%)") -> Figure:
    """``quantity`` against k, with plain training as a band; and the paired difference to plain training.

    ``results`` is :func:`research.frames.gram.results_against_k`. Left: mean and standard deviation over seeds. Right:
    mean over seeds of GraM minus plain training, and its standard error.

    Raises:
        UsageError: no run with GraM has finished.
    """
    if results["k"].isna().all():
        raise UsageError("no run with GraM has finished, so there is nothing to draw against k")
    lines = dict(list(results[results["k"].notna()].groupby(["setup", "method"])))
    handles, named = [], set()
    with style():
        height = 2.3 + 0.16 * len(lines)
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, height), layout="constrained")
        for place, ((setup, method), colour) in enumerate(zip(lines, colours(len(lines)), strict=True)):
            line = lines[setup, method]
            k = line["k"] * 1.06**place  # error bars beside each other
            left.errorbar(k, line["mean"], line["std"], color=colour, marker="o", elinewidth=0.8, capsize=2)
            right.errorbar(k, line["difference"], line["error"], color=colour, marker="o", elinewidth=0.8, capsize=2)
            label = " ".join(filter(None, (setup, method))) or "GraM"
            handles.append(Line2D([], [], color=colour, marker="o", label=label + _counted(line)))
            plain = results[results["k"].isna() & (results["setup"] == setup)]
            if len(plain) and setup not in named:
                named.add(setup)
                shade = "0.3" if len(lines) == 1 else colour
                _band(left, plain.iloc[0], shade)
                label = (f"{setup} without GraM" if setup else "plain training") + _counted(plain)
                handles.append(Line2D([], [], color=shade, linestyle="--", linewidth=0.8, label=label))
        right.axhline(0, color="0.3", linestyle="--", linewidth=0.8)
        for axis, label in ((left, quantity), (right, "difference to plain ± s.e.")):
            axis.set(xlabel="k", ylabel=label, xscale="log")
            ticks = sorted(results["k"].dropna().unique())
            axis.xaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        plt.close(figure)
    return figure


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


def _band(axis: Axes, plain: pd.Series, colour) -> None:
    axis.axhline(plain["mean"], color=colour, linestyle="--", linewidth=0.8)
    if plain["seeds"] > 1:
        low, high = plain["mean"] - plain["std"], plain["mean"] + plain["std"]
        axis.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)


def _counted(rows: pd.DataFrame) -> str:
    least, most = rows["seeds"].min(), rows["seeds"].max()
    spread = ", mean ± s.d." if most > 1 else ""
    return f" (n = {least}{f'–{most}' if most > least else ''}{spread})"
