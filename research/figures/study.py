"""What studies tell: results against k, seconds of measuring, and accuracy against what was tried for each arm."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.legends import legend_below, legend_beside, number_ends, tell_apart
from research.figures.style import BLUE, PAGE, number_log_axis, seeds, style


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
    names = {each: " ".join(filter(None, each)) or "GraM" for each in lines}
    apart = tell_apart({name: "gram" for name in names.values()})
    ends, counted = ({}, {}), {}
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.2), layout="constrained")
        for place, ((setup, method), line) in enumerate(lines.items()):
            name = names[setup, method]
            colour, beside = apart.looks[name].colour, 0.6 * ((place + 0.5) / len(lines) - 0.5)
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
            for end, y in zip(ends, ("mean", "difference"), strict=True):
                end[name] = at.iloc[-1], line[y].iloc[-1]
            counted[name] = _counted(line, plain)
        right.axhline(0, color="0.3", linestyle="--", linewidth=0.8)
        places = {"plain": 0} | {f"{k:g}": place for k, place in ks.items()}
        points = "points" if "(%)" in quantity else quantity.partition("(")[2].rstrip(")")
        difference = "difference to plain" + f" ({points})" * bool(points)
        for axis, label, first in ((left, quantity, 0), (right, difference, 1)):
            axis.set_xticks(list(places.values())[first:], list(places)[first:])
            axis.set(xlabel="k", ylabel=label, xlim=(first - 0.5, len(ks) + 0.5))
        for axis, end in zip((left, right), ends, strict=True):
            number_ends(axis, end, apart)
        dots = {"adjusted p ≤ 0.05": "0.3", "difference with larger p": "white"}
        handles = [Line2D([], [], color="0.3", marker="o", mfc=f, markersize=4, label=n) for n, f in dots.items()]
        same = next(iter(counted.values())) if len(set(counted.values())) == 1 else ""  # said once
        for handle in apart.handles:
            handle.set_label(handle.get_label() + counted.get(handle.get_label(), "") * (not same))
        title = f"bars: 95 % intervals; small dots: seeds{same}"
        legend_below(figure, [*handles, *apart.groups, *apart.handles], title)
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
            axis.plot(middle.index, middle, color=BLUE, marker="o")
            if runs > 1:
                low, high = per_epoch[column].quantile(0.25), per_epoch[column].quantile(0.75)
                axis.fill_between(middle.index, low, high, color=BLUE, alpha=0.2, linewidth=0)
            axis.set(xlabel="epoch", ylabel=f"measuring, {label}", yscale="log")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            number_log_axis(axis.yaxis)
        if runs > 1:
            label = f"median of {runs} runs, and the middle half of them"
            legend_below(figure, [Line2D([], [], color=BLUE, marker="o", label=label)])
        plt.close(figure)
    return figure


def accuracy_against_value(trials: pd.DataFrame) -> Figure:
    """Top-1 on held-out images at every value that was tried, a line an arm; a ring marks what each arm was given.

    ``trials`` is :func:`research.frames.plans.trials`. A dot is a run, a line joins the means. The places on the axis
    are those of the values in order, not their size; arms stand side by side. A cross at the foot: a run diverged.

    Raises:
        UsageError: nothing was tried.
    """
    if trials.empty:
        raise UsageError("no study of these runs chose a value for its arms")
    studies = dict(list(trials.groupby("study", sort=False)))
    with style():
        figure, axes = plt.subplots(
            len(studies), 1, figsize=(PAGE, 2.4 * len(studies)), layout="constrained", squeeze=False
        )
        for axis, part in zip(axes.flat, studies.values(), strict=True):
            values = sorted(part["value"].unique(), key=lambda value: (isinstance(value, str), value))
            places = {value: place for place, value in enumerate(values)}
            best = part.groupby(["arm", "value"])["top1"].mean().groupby("arm").max().sort_values(ascending=False)
            arms = list(dict.fromkeys(part["arm"]))
            lines, ends = tell_apart(dict.fromkeys(arms, ""), list(best.index)), {}
            foot = part["top1"].min() - 0.05 * (part["top1"].max() - part["top1"].min() + 1)
            for place, arm in enumerate(arms):
                colour = lines.looks[arm].colour
                beside = 0.3 * ((place + 0.5) / len(arms) - 0.5)
                rows = part[part["arm"] == arm]
                means = rows.groupby("value")["top1"].agg(lambda found: found.mean(skipna=False))
                means = means.reindex([value for value in values if value in means.index])
                at = [places[value] + beside for value in means.index]
                axis.plot(at, means, color=colour, marker="o", markersize=2.5, linewidth=0.9, label=arm)
                ends[arm] = next(zip(at[::-1], means.dropna()[::-1], strict=False), (0.0, foot))
                for x, value in zip(at, means.index, strict=True):
                    here = rows[rows["value"] == value]
                    seeds(axis, x, here["top1"].dropna(), colour)
                    if here["top1"].isna().any():
                        axis.plot(x, foot, marker="x", color=colour, markersize=4, linewidth=0)
                    if here["chosen"].any():
                        axis.plot(x, means[value], marker="o", markersize=7, mfc="none", color=colour, linewidth=0)
            images = "top-1 on held-out images (%)"
            axis.set(xlabel=f"{part['over'].iloc[0]}, in order", ylabel=images, xlim=(-0.5, len(values) - 0.5))
            axis.set_xticks(
                range(len(values)), [f"{value:g}" if isinstance(value, (int, float)) else value for value in values]
            )
            number_ends(axis, ends, lines)
            legend_beside(axis, lines.handles)
        ring = Line2D([], [], marker="o", markersize=7, mfc="none", color="0.3", linewidth=0, label="what it was given")
        cross = Line2D([], [], marker="x", markersize=4, color="0.3", linewidth=0, label="a run diverged")
        seed = Line2D([], [], marker="o", markersize=2.5, color="0.3", alpha=0.6, linewidth=0, label="a run")
        legend_below(figure, [ring, seed, cross])
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
