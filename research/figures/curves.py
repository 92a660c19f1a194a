"""Learning curves: loss and top-1 against epochs."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.legends import legend_below, number_ends, tell_apart
from research.figures.style import LOOKS, PAGE, Look, number_log_axis, style
from research.frames import Runs

KINDS = {"train_epoch": (":", "white", "train"), "val": ("-", None, "validation")}  # dash, face of a marker, name
WIDE = 30  # largest over smallest loss from which on their axis is logarithmic
METRICS = {"loss": "loss (nats)", "top1": "top-1 (%)"}


def loss_curves(runs: Runs) -> Figure:
    """Training and validation loss and top-1 against epochs.

    Runs that differ only in their seed are one line, their mean, with a band of one standard deviation. Up to eight
    configurations have a colour each. Of more, a colour is a method, lines have no band, and the twelve of the highest
    validation accuracy have a number at the end of their line.

    Raises:
        UsageError: no run has finished an epoch.
    """
    epochs = epoch_means(runs)
    if epochs.empty:
        raise UsageError("no run has finished an epoch, so there are no curves to draw")
    last = epochs[(epochs["kind"] == "val") & (epochs["metric"] == "top1")].groupby("configuration")["mean"].last()
    methods = dict(zip(runs.labels(), map(_method, runs["hooks"], runs["substitute"]), strict=True))
    methods = {label: methods[label] for label in dict.fromkeys(epochs["configuration"])}
    alone = epochs["trained"].max() == 1
    if alone:  # side by side, in the order of the legend
        place = {name: at for at, name in enumerate(methods)}
        epochs["trained"] = 1 + 0.7 * ((epochs["configuration"].map(place) + 0.5) / len(place) - 0.5)
    lines = tell_apart(methods, list(last.sort_values(ascending=False, kind="stable").index))
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.1), layout="constrained")
        for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
            ends, shown = {}, epochs[epochs["metric"] == metric]
            for (name, kind), rows in shown.groupby(["configuration", "kind"]):
                _line(axis, rows, lines.looks[name], kind, crowded=lines.crowded)
                ends[name] = rows[["trained", "mean"]].iloc[-1]  # "val" comes last
            axis.set(xlabel="epoch", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if metric == "loss" and shown["mean"].max() > WIDE * shown["mean"].min() > 0:
                axis.set_yscale("log")
                number_log_axis(axis.yaxis)
            if alone:
                axis.set(xlim=(0.5, 1.5), xticks=[1])
            number_ends(axis, ends, lines)
        seeds = epochs.groupby("configuration")["seeds"].max()
        if seeds.nunique() > 1:
            for handle in lines.handles:
                if handle.get_label() in seeds:
                    handle.set_label(f"{handle.get_label()} (n = {seeds[handle.get_label()]})")
        marker = "o" if epochs.groupby(["configuration", "kind", "metric"]).size().min() == 1 else ""
        kinds = [
            Line2D([], [], color="0.3", linestyle=dash, marker=marker, markerfacecolor=face or "0.3", label=name)
            for dash, face, name in KINDS.values()
        ]
        legend_below(figure, [*kinds, *lines.groups], where="upper center")
        legend_below(figure, lines.handles, _counted(seeds, lines.crowded))
        plt.close(figure)
    return figure


def epoch_means(runs: Runs) -> pd.DataFrame:
    """Loss and top-1 of every epoch: configuration, seeds, kind, metric, trained (epochs), mean, std over seeds."""
    rows = runs.metrics
    rows = rows[rows["kind"].isin(KINDS) & rows["metric"].isin(METRICS)].drop_duplicates(
        ["run", "kind", "epoch", "metric"], keep="last"
    )
    labels = pd.Series(runs.labels().to_numpy(), index=runs["name"].to_numpy())
    rows = rows.assign(configuration=rows["run"].map(labels), trained=rows["epoch"] + 1)
    grouped = rows.groupby(["configuration", "kind", "metric", "trained"], sort=True)["value"]
    return grouped.agg(mean="mean", std="std", seeds="count").reset_index()


def _method(hooks: str, substitute: str) -> str:
    """The method that a run is of; of several, all their names, which no look belongs to."""
    known = [each for each in (*hooks.split("+"), substitute.partition(":")[0]) if each in LOOKS]
    return "+".join(known) or "dense"


def _line(axis: Axes, rows: pd.DataFrame, look: Look, kind: str, crowded: bool) -> None:
    dash, face, _ = KINDS[kind]
    drawn = {"marker": "o", "markerfacecolor": face or look.colour} if len(rows) == 1 else {}
    drawn |= {"linewidth": 0.7, "alpha": 0.8} if crowded else {}
    axis.plot(rows["trained"], rows["mean"], color=look.colour, linestyle=dash, **drawn)
    if len(rows) == 1 and not crowded:
        axis.vlines(rows["trained"], rows["mean"] - rows["std"], rows["mean"] + rows["std"], look.colour, linewidth=0.8)
    elif (rows["seeds"] > 1).any() and not crowded:
        low, high = rows["mean"] - rows["std"], rows["mean"] + rows["std"]
        axis.fill_between(rows["trained"], low, high, color=look.colour, alpha=0.2, linewidth=0)


def _counted(seeds: pd.Series, crowded: bool) -> str:
    """What a line is of how many seeds, said once."""
    if seeds.max() == 1:
        return "n = 1"
    drawn = "mean" if crowded else "mean ± s.d."
    return f"{drawn}, n = {seeds.max()}" if seeds.nunique() == 1 else f"{drawn} of n seeds"
