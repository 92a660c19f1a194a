"""Cost and accuracy of networks: error against size, learning curves with a teacher, cost by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.legends import legend_below, number_ends, shortened, tell_apart
from research.figures.style import FAMILIES, PAGE, TALLEST, Look, number_log_axis, ramp, seeds, style
from research.measures.cost import Cost

GREY = "0.7"
MARKER = 5.0
COSTS = {"params": "parameters", "mult_adds": "mult-adds of one image"}


def look(family: str) -> Look:
    return FAMILIES.get(family, Look("0.35", "p", family))


def error_against_cost(
    points: pd.DataFrame, reference: pd.DataFrame | None = None, reference_label: str = "published"
) -> Figure:
    """Top-1 error against parameters and against mult-adds, both logarithmic; families by colour and marker.

    ``points`` and ``reference`` have the columns of :mod:`research.frames.budgets`. Filled markers were trained with a
    teacher, hollow ones without. Points of one ``configuration``, or of published ones without one those that differ in
    nothing that is known, are one: seeds as dots and their mean. Means of one family and network are joined.
    ``reference`` points are grey, each by itself.

    Raises:
        UsageError: there is no point.
    """
    if points.empty:
        raise UsageError("there is no error with a known cost to draw")
    same = ["network", "dataset", "family", "distilled", "setting", "params", "mult_adds"]
    same += [name for name in ("configuration",) if name in points]
    means = points.groupby(same, dropna=False)["top1_err"].agg(mean="mean", values=tuple).reset_index()
    families = [family for family in (*FAMILIES, *sorted(set(means["family"]))) if family in set(means["family"])]
    families = list(dict.fromkeys(families))
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.6), sharey=True, layout="constrained")
        for axis, (cost, label) in zip(axes, COSTS.items(), strict=True):
            if reference is not None:
                for (family, distilled), rows in reference.dropna(subset=cost).groupby(["family", "distilled"]):
                    _points(axis, rows[cost], rows["top1_err"], look(family)._replace(colour=GREY), distilled)
            for (_, family, distilled), rows in means.dropna(subset=cost).groupby(["network", "family", "distilled"]):
                rows = rows.sort_values(cost)
                colour = look(family).colour
                for place, values in zip(rows[cost], rows["values"], strict=True):
                    seeds(axis, place, values, colour)
                if rows[cost].nunique() > 1 and family != "dense":
                    axis.plot(
                        rows[cost], rows["mean"], color=colour, linestyle="-" if distilled else ":", linewidth=0.7
                    )
                _points(axis, rows[cost], rows["mean"], look(family), distilled)
            axis.set(xlabel=label, xscale="log")
            _few_ticks(axis)
        axes[0].set_ylabel("top-1 error (%)")
        grey = reference_label if reference is not None and len(reference) else ""
        taught = set(means["distilled"]) | (set() if reference is None else set(reference["distilled"]))
        legend_below(figure, _legend(families, taught, grey))
        plt.close(figure)
    return figure


def _points(axis: Axes, x: pd.Series, y: pd.Series, look: Look, distilled: bool) -> None:
    size = MARKER * (1.5 if look.marker == "*" else 1)
    face = look.colour if distilled else "white"
    axis.plot(
        x, y, linewidth=0, marker=look.marker, markersize=size, markeredgecolor=look.colour, markerfacecolor=face,
        markeredgewidth=0.9, zorder=2 if look.colour == GREY else 4,
    )  # fmt: skip


def _legend(families: list[str], taught: set[bool], grey: str) -> list[Line2D]:
    handles = [
        Line2D([], [], linewidth=0, color=look(f).colour, marker=look(f).marker, markersize=MARKER, label=look(f).name)
        for f in families
    ]
    for distilled, label in ((True, "with a teacher"), (False, "without")):
        if distilled in taught:
            face = "0.3" if distilled else "white"
            handles.append(
                Line2D([], [], linewidth=0, color="0.3", marker="o", markersize=MARKER, mfc=face, label=label)
            )
    if grey:
        handles.append(Line2D([], [], linewidth=0, color=GREY, marker="o", markersize=MARKER, label=grey))
    return handles


def _few_ticks(axis: Axes) -> None:
    """Labels at 1, 2 and 5 times a power of ten where the axis spans less than two of them."""
    low, high = axis.get_xlim()
    if high < 100 * low:
        number_log_axis(axis.xaxis, lambda value: f"{value:.0e}".replace("e+0", "e").replace("e+", "e"))


def teacher_curves(losses: pd.DataFrame) -> Figure:
    """Training loss, its cross-entropy and validation error against epochs; dashed without a teacher.

    ``losses`` is :func:`research.frames.budgets.training_losses`. A colour is a configuration, the same with and
    without a teacher; bands are one standard deviation over seeds. Cross-entropy is drawn where it is known apart from
    what a teacher adds.

    Raises:
        UsageError: no epoch has ended.
    """
    if losses.empty:
        raise UsageError("no run has finished an epoch, so there are no curves to draw")
    losses = losses.assign(student=losses["configuration"].map(_student))
    last = losses[losses["quantity"] == "top1_err"].groupby("student")["mean"].last().sort_values()
    lines = tell_apart({name: _family(name) for name in dict.fromkeys(losses["student"])}, list(last.index))
    panels = {"loss": "training loss, as minimised", "ce": "training cross-entropy (nats)"}
    panels |= {"top1_err": "validation top-1 error (%)"}
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.1), layout="constrained")
        for axis, (quantity, label) in zip(axes, panels.items(), strict=True):
            ends = {}
            for (_, distilled), rows in losses[losses["quantity"] == quantity].groupby(["configuration", "distilled"]):
                dash, student = "-" if distilled else "--", rows["student"].iloc[0]
                colour = lines.looks[student].colour
                face = colour if distilled else "white"
                marker = {"marker": "o", "markerfacecolor": face} if len(rows) == 1 else {}
                axis.plot(rows["trained"], rows["mean"], color=colour, linestyle=dash, linewidth=1, **marker)
                ends[student] = rows[["trained", "mean"]].iloc[-1]
                if (rows["seeds"] > 1).any() and not lines.crowded:
                    low, high = rows["mean"] - rows["std"], rows["mean"] + rows["std"]
                    axis.fill_between(rows["trained"], low, high, color=colour, alpha=0.15, linewidth=0)
            axis.set(xlabel="epoch", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            number_ends(axis, ends, lines)
        handles = [Line2D([], [], color="0.3", label="with a teacher")] if losses["distilled"].any() else []
        handles += [Line2D([], [], color="0.3", linestyle="--", label="without")] * (not losses["distilled"].all())
        legend_below(figure, [*handles, *lines.groups], where="upper center")
        legend_below(figure, lines.handles)
        plt.close(figure)
    return figure


def _student(configuration: str) -> str:
    """The configuration without the parameters of its teacher."""
    words = [word for word in configuration.split() if not word.startswith("distill")]
    return " ".join(words) or "dense"


def _family(student: str) -> str:
    """The family of the substitute that the words of a configuration name; "dense" of none."""
    return next((name for word in student.split() if (name := word.partition(":")[0]) in FAMILIES), "dense")


def cost_by_layer(costs: Mapping[str, Cost]) -> Figure:
    """Where the parameters and mult-adds of each network are: a bar a network, a part a layer, in order of depth.

    Bars show shares, with the total beside them; a colour is a part of the network, named by what its layers' names
    begin with. White lines part the layers.
    """
    parts = list(
        dict.fromkeys(_part(row.layer) for cost in costs.values() for row in cost.rows if row.params or row.mult_adds)
    )
    shades = dict(zip(parts, ramp(len(parts)), strict=True))
    with style():
        height = min(0.6 + 0.28 * len(costs), 0.9 * TALLEST)
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, height), sharey=True, layout="constrained")
        small = min(7, 45 * (height - 0.6) / len(costs))  # points of a row
        for axis, (quantity, label) in zip(axes, COSTS.items(), strict=True):
            for place, cost in enumerate(costs.values()):
                rows = [(_part(row.layer), value) for row in cost.rows if (value := getattr(row, quantity))]
                values = np.array([value for _, value in rows], dtype=float)
                total, shares = values.sum(), 100 * values / values.sum()
                axis.barh(
                    place, shares, left=np.cumsum(shares) - shares, height=0.7, linewidth=0.3, edgecolor="white",
                    color=[shades[part] for part, _ in rows],
                )  # fmt: skip
                axis.text(101, place, _amount(total), va="center", fontsize=small)
            axis.set(xlabel=f"share of {label} (%)", xlim=(0, 100))
            axis.grid(False)
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(costs)), [shortened(name, 40) for name in costs], fontsize=small)
        axes[0].invert_yaxis()
        handles = [plt.Rectangle((0, 0), 1, 1, color=shades[part], label=part) for part in parts]
        legend_below(figure, handles)
        plt.close(figure)
    return figure


def _part(layer: str) -> str:
    first, _, rest = layer.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in ("features", "cells") else first


def _amount(number: float) -> str:
    """Three digits and a letter, such as 36.5 M."""
    power = min(3, max(0, int(math.log10(max(number, 1)) // 3)))
    return f"{number / 1000**power:.3g} {'kMG'[power - 1] if power else ''}".rstrip()
