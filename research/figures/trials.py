"""What was tried to tune each arm of a study: accuracy on held-out images against the value, a line an arm."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research.errors import UsageError
from research.figures.style import PAGE, colours, seeds, style


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
            len(studies), 1, figsize=(PAGE, 2.6 * len(studies)), layout="constrained", squeeze=False
        )
        for axis, part in zip(axes.flat, studies.values(), strict=True):
            values = sorted(part["value"].unique(), key=lambda value: (isinstance(value, str), value))
            places = {value: place for place, value in enumerate(values)}
            arms = list(dict.fromkeys(part["arm"]))
            foot = part["top1"].min() - 0.05 * (part["top1"].max() - part["top1"].min() + 1)
            for place, (arm, colour) in enumerate(zip(arms, colours(len(arms)), strict=True)):
                beside = 0.3 * ((place + 0.5) / len(arms) - 0.5)
                rows = part[part["arm"] == arm]
                means = rows.groupby("value")["top1"].agg(lambda found: found.mean(skipna=False))
                means = means.reindex([value for value in values if value in means.index])
                at = [places[value] + beside for value in means.index]
                axis.plot(at, means, color=colour, marker="o", markersize=2.5, linewidth=0.9, label=arm)
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
            axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        plt.close(figure)
    return figure
