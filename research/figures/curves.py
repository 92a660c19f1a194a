"""Learning curves: loss and top-1 against epochs."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from research.errors import UsageError
from research.figures.style import PAGE, colours, style
from research.frames import Runs

KINDS = {"train_epoch": (":", "train"), "val": ("-", "validation")}
METRICS = {"loss": "loss (nats)", "top1": "top-1 (%)"}


def loss_curves(runs: Runs) -> Figure:
    """Training and validation loss and top-1 against epochs, a colour for each configuration.

    Runs that differ only in their seed are one line, their mean, with a band of one standard deviation.

    Raises:
        UsageError: no run has finished an epoch.
    """
    epochs = epoch_means(runs)
    if epochs.empty:
        raise UsageError("no run has finished an epoch, so there are no curves to draw")
    labels = list(dict.fromkeys(epochs["configuration"]))
    palette = dict(zip(labels, colours(len(labels)), strict=True))
    handles = [Line2D([], [], color=palette[label], label=_counted(label, epochs)) for label in labels]
    handles += [Line2D([], [], color="0.3", linestyle=dash, label=name) for dash, name in KINDS.values()]
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(3, 110 // (longest + 8)))  # characters of 7 pt that fit the page
    with style():
        figure, axes = plt.subplots(
            1, 2, figsize=(PAGE, 2.2 + 0.16 * math.ceil(len(handles) / columns)), layout="constrained"
        )
        for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
            for (configuration, kind), rows in epochs[epochs["metric"] == metric].groupby(["configuration", "kind"]):
                _line(axis, rows, palette[configuration], KINDS[kind][0])
            axis.set(xlabel="epoch", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
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


def _line(axis: Axes, rows: pd.DataFrame, colour, dash: str) -> None:
    marker = "o" if len(rows) == 1 else None
    axis.plot(rows["trained"], rows["mean"], color=colour, linestyle=dash, marker=marker)
    if (rows["seeds"] > 1).any():
        low, high = rows["mean"] - rows["std"], rows["mean"] + rows["std"]
        axis.fill_between(rows["trained"], low, high, color=colour, alpha=0.2, linewidth=0)


def _counted(label: str, epochs: pd.DataFrame) -> str:
    seeds = epochs.loc[epochs["configuration"] == label, "seeds"].max()
    return f"{label} (n = {seeds}, mean ± s.d.)" if seeds > 1 else f"{label} (n = 1)"
