"""Sparse training: error at each density, where the weights are and move to, and how many come and go.

Frames are those of :mod:`research.frames.sparse`.
"""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.legends import legend_below, number_ends, tell_apart
from research.figures.style import COLUMN, PAGE, PALETTE, SPARSE, Look, look, number_log_axis, ramp, seeds, style
from research.frames.comparison import mean_interval
from research.frames.sparse import NAMES
from research.frames.tables import levels

GREY = "0.6"
MARKER = 5.0
DASHES = ("-", "--", ":", "-.")
PANELS = 12
VARIED = 1.02  # a layer whose density changes by less than this factor does not move


DENSE = [SPARSE["dense"], *(Look(*each) for each in zip(PALETTE, "dH8pd", strict=False))]
"""Looks of dense networks, one per method that trains them; plain training comes first."""


def dense_looks(points: pd.DataFrame) -> dict[str, Look]:
    """Looks of the dense configurations among ``points``: networks without masks that other methods train differ."""
    dense = sorted(set(points.loc[points["method"] == "dense", "configuration"]), key=len)
    return {name: DENSE[place % len(DENSE)] for place, name in enumerate(dense)}


def error_against_density(points: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Top-1 error at each density: a strip a density, and in it the arms of that budget side by side.

    Filled: own runs (:func:`~research.frames.sparse.sparse_points`), seeds as dots, mean and its 95 % interval; half
    filled where the sparsity is spread over layers as in Erdos-Renyi graphs. Hollow: ``published`` results of the same
    data, models and densities, in the method's colour where they were trained for as many epochs, else grey. Densities
    up to a tenth apart are one strip, named by its least and largest; places within a strip mean nothing. A row a data
    set.

    Raises:
        UsageError: there is no point.
    """
    if points.empty:
        raise UsageError("there is no error with a known density to draw")
    datasets = list(dict.fromkeys(points["dataset"]))
    methods = [*dict.fromkeys(points["method"])]
    dense = dense_looks(points)
    with style():
        figure, axes = plt.subplots(
            len(datasets), 1, figsize=(PAGE, 0.4 + 2.4 * len(datasets)), squeeze=False, layout="constrained"
        )
        for axis, dataset in zip(axes[:, 0], datasets, strict=True):
            own = points[points["dataset"] == dataset]
            known = published[published["dataset"] == dataset] if published is not None else own[:0]
            _strips(axis, own, known[known["method"].isin(methods)], dense)
            axis.set(yscale="log", xlabel=f"density (% of the dense network's parameters), {dataset}")
            axis.set_ylabel("top-1 error (%)")
            number_log_axis(axis.yaxis)
        handles = [_handle(own.colour, own.marker, name) for name, own in dense.items()]
        handles += [_handle(look(m).colour, look(m).marker, NAMES.get(m, m)) for m in methods if m != "dense"]
        if (points["distribution"] != "uniform").any():
            handles.append(_handle("0.3", "o", "own, Erdos-Renyi", fillstyle="left"))
        if published is not None and len(published):
            handles.append(_handle("0.3", "o", "published, as many epochs", mfc="white"))
            handles.append(_handle(GREY, "o", "published, other epochs", mfc="white"))
        handles.append(Line2D([], [], color="0.3", linewidth=0.8, label="95 % of the mean over seeds"))
        legend_below(figure, handles)
        plt.close(figure)
    return figure


def _strips(axis: Axes, own: pd.DataFrame, known: pd.DataFrame, dense: dict[str, Look]) -> None:
    """Draw every arm of ``own`` in a place of its own, and what is ``known`` of its method and budget beside it."""
    same = ["configuration", "method", "distribution"]
    mean = own["density"].groupby([own[name] for name in same]).transform("mean")
    budgets = levels([*mean, *known["density"]], 0.1)
    own, known = own.assign(budget=mean.map(budgets)), known.assign(budget=known["density"].map(budgets))
    own = own.sort_values("distribution", key=lambda each: each != "uniform", kind="stable")  # as what was published
    epochs, ticks, place = set(own["epochs"]), {}, 0
    for budget in [each for each in dict.fromkeys(budgets.values()) if (own["budget"] == each).any()]:
        first, inside = place, known[known["budget"] == budget]
        for method in dict.fromkeys([*NAMES, *own["method"]]):
            arms = own[(own["method"] == method) & (own["budget"] == budget)].groupby(same, sort=False)
            beside = inside[inside["method"] == method]
            for at, ((name, _, distribution), rows) in enumerate(arms):
                _arm(axis, place + at, rows, dense.get(name, look(method)), distribution)
            _published(axis, place + 0.35 * (len(arms) > 0), beside, epochs)
            place += max(len(arms), len(beside) > 0)
        ticks[(first + place - 1) / 2] = budget
        axis.axvline(place - 0.25, color="0.8", linewidth=0.6)
        place += 0.5
    named = []  # of many strips those whose names do not cover each other
    for at in ticks:
        named += [at] if not named or at - named[-1] > 0.07 * place else []
    axis.set_xticks(named, [ticks[at] for at in named])
    axis.set_xlim(-0.75, place - 0.75)
    axis.grid(False, axis="x")


def _arm(axis: Axes, place: float, rows: pd.DataFrame, look: Look, distribution: str) -> None:
    error = 100 - rows["top1"]
    seeds(axis, place, error, look.colour)
    mean, low, high = mean_interval(error)
    if low == low:
        axis.vlines(place, max(low, 0.1 * mean), high, color=look.colour, linewidth=0.8)  # the axis has no place for 0
    axis.plot(
        place, mean, look.marker, color=look.colour, markersize=MARKER, zorder=4,
        fillstyle="full" if distribution == "uniform" else "left", markerfacecoloralt="white",
    )  # fmt: skip


def _published(axis: Axes, place: float, known: pd.DataFrame, epochs: set[int]) -> None:
    for row in known.itertuples():
        colour = look(row.method).colour if row.epochs in epochs else GREY
        axis.plot(
            place, 100 - row.top1, marker=look(row.method).marker, linewidth=0, markersize=MARKER,
            markerfacecolor="none", markeredgecolor=colour, markeredgewidth=0.8, zorder=3,
        )  # fmt: skip


def _handle(colour: str, marker: str, label: str, **more: object) -> Line2D:
    size = {"linewidth": 0, "markersize": MARKER, "markerfacecoloralt": "white"}
    return Line2D([], [], color=colour, marker=marker, label=label, **size, **more)


def density_by_layer(layers: pd.DataFrame) -> Figure:
    """Density of every masked layer against epochs, logarithmic: a panel for each configuration in which some moves.

    ``layers`` is :func:`~research.frames.sparse.densities_over_time`. Means over seeds; bands are one standard
    deviation. Colours run from the first layer (dark) to the last.

    Of more than twelve configurations, the twelve whose layers move furthest have a panel.

    Raises:
        UsageError: no layer changes its density.
    """
    means = layers.groupby(["configuration", "layer", "trained"], sort=False)["density"].agg(["mean", "std"])
    means = means.reset_index()
    by_layer = means.groupby(["configuration", "layer"])["mean"]
    change = (by_layer.max() / by_layer.min()).groupby("configuration").max()
    moving = change[change > VARIED].nlargest(PANELS)
    shown = [name for name in dict.fromkeys(means["configuration"]) if name in moving]
    if not shown:
        raise UsageError("no layer changes its density in these runs")
    names = list(dict.fromkeys(means["layer"]))
    shades = dict(zip(names, ramp(len(names)), strict=True))
    columns = len(shown) if len(shown) <= 4 else 3
    lines = -(-len(shown) // columns)
    with style():
        figure, axes = plt.subplots(
            lines, columns, figsize=(PAGE if columns > 1 else COLUMN, 0.3 + 1.7 * lines), sharex=True, sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, name in zip(axes.flat, shown, strict=False):
            for layer, rows in means[means["configuration"] == name].groupby("layer", sort=False):
                rows = rows.sort_values("trained")
                axis.plot(rows["trained"], 100 * rows["mean"], color=shades[layer], marker="o", markersize=2)
                low, high = (rows["mean"] + sign * rows["std"].fillna(0.0) for sign in (-1, 1))
                axis.fill_between(rows["trained"], 100 * low, 100 * high, color=shades[layer], alpha=0.2, linewidth=0)
            axis.set(yscale="log", title=textwrap.fill(name, 36 if columns < 4 else 26))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            number_log_axis(axis.yaxis)
        for axis in axes.flat[len(shown) :]:
            axis.set_axis_off()
        for axis in axes.flat[max(0, len(shown) - columns) : len(shown)]:  # those with nothing below
            axis.set(xlabel="epochs trained")
            axis.tick_params(labelbottom=True)
        for axis in axes[:, 0]:
            axis.set(ylabel="density of the layer (%)")
        ends = names if len(names) <= 6 else [names[0], names[-1]]
        handles = [Line2D([], [], color=shades[name], label=name.removesuffix(".weight")) for name in ends]
        count = (change > VARIED).sum()
        legend_below(figure, handles, "layer" if count <= PANELS else f"layer; {PANELS} of {count} configurations")
        plt.close(figure)
    return figure


def reallocation(found: pd.DataFrame) -> Figure:
    """Threshold and rewired units of every event against steps: a line a run, a colour a configuration.

    ``found`` is :func:`~research.frames.sparse.events`; methods that act in every step are left out. Dashed: the units
    that an event should drop, where the method has such a parameter.

    Raises:
        UsageError: no method has events with a threshold.
    """
    found = found[found["method"] != "deepr"]
    if "threshold" not in found or found["threshold"].isna().all():
        raise UsageError("no event has a threshold: none of these runs is DSR's")
    found = found.sort_values("step", kind="stable")
    own = found[found["threshold"].notna()].drop_duplicates("configuration")
    lines = tell_apart(dict(zip(own["configuration"], own["method"], strict=True)))
    ends = ({}, {})
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.1), layout="constrained")
        shown = found[found["configuration"].isin(lines.looks)]
        for (name, _), rows in shown.groupby(["configuration", "run"], sort=False):
            drawn = {"color": lines.looks[name].colour, "linewidth": 0.7, "alpha": 0.7}
            drawn |= {"marker": "o"} if len(rows) == 1 else {}
            axes[0].step(rows["step"], rows["threshold"], where="post", **drawn)
            axes[1].plot(rows["step"], rows["pruned"], **drawn)
            for end, quantity in zip(ends, ("threshold", "pruned"), strict=True):
                end[name] = rows[["step", quantity]].iloc[-1]
        for k in sorted(set(found["k"].dropna())):
            axes[1].axhline(k, color="0.3", linestyle="--", linewidth=0.8)
        axes[0].set(yscale="log", xlabel="optimizer step", ylabel="threshold H of the event")
        axes[1].set(yscale="log", xlabel="optimizer step", ylabel="units killed and regrown")
        number_log_axis(axes[1].yaxis)
        for axis, end in zip(axes, ends, strict=True):
            number_ends(axis, end, lines)
        asked = Line2D([], [], color="0.3", linestyle="--", linewidth=0.8, label="K, asked for")
        legend_below(figure, [asked, *lines.groups], where="upper center")
        legend_below(figure, lines.handles, "a line a run")
        plt.close(figure)
    return figure


def coverage_and_survival(history: pd.DataFrame) -> Figure:
    """Units that were ever active, that survived the last epoch, and that remain of the initial ones, against epochs.

    ``history`` is :func:`~research.frames.sparse.network_history`; means over seeds. A colour and marker is a method,
    a dash its configuration.

    Raises:
        UsageError: it is empty.
    """
    if history.empty:
        raise UsageError("no run with masks has finished an epoch")
    panels = {
        "coverage": "ever active, Rs (% of all)",
        "kept": "still active after an epoch (%)",
        "survived": "left of the initial ones (%)",
    }
    means = history.groupby(["configuration", "method", "trained"], sort=False)[list(panels)].mean().reset_index()
    methods = means.drop_duplicates("configuration").set_index("configuration")["method"]
    place = methods.groupby(methods).cumcount()  # among those of its method
    lines = tell_apart(dict(methods))
    ends = {quantity: {} for quantity in panels}
    dashes = {name: "-" if lines.crowded else DASHES[at % len(DASHES)] for name, at in place.items()}
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.1), layout="constrained")
        for axis, (quantity, label) in zip(axes, panels.items(), strict=True):
            for (name, method), rows in means.groupby(["configuration", "method"], sort=False):
                drawn = lines.looks[name] if lines.crowded else look(method)
                axis.plot(
                    rows["trained"], 100 * rows[quantity], color=drawn.colour, marker=drawn.marker,
                    linestyle=dashes[name], linewidth=0.9, label=name,
                )  # fmt: skip
                ends[quantity][name] = rows["trained"].iloc[-1], 100 * rows[quantity].iloc[-1]
            axis.set(xlabel="epochs trained", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes[0].set_yscale("log")
        number_log_axis(axes[0].yaxis)
        for axis in axes[1:]:
            axis.set_ylim(-3, 103)
        for axis, end in zip(axes, ends.values(), strict=True):
            number_ends(axis, end, lines)
        legend_below(figure, lines.groups, where="upper center")
        legend_below(figure, lines.handles if lines.crowded else axes[0].lines, "mean over seeds")
        plt.close(figure)
    return figure
