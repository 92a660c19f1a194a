"""Multipliers of single taps as lines: over epochs, k and distance, and horizontal against vertical."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from research.figures.style import COLUMN, PAGE, TALLEST, colours, ramp, style

POSITIONS = {"centre": (0, 0), "edge": (0, 1), "corner": (1, 1)}  # sorted (|dy|, |dx|) of the one-hop neighbourhood


def multiplier_over_epochs(taps: pd.DataFrame) -> Figure:
    """Multiplier at the centre, edges and corners of the kernel against epochs, a line for each layer.

    ``taps`` is :func:`research.frames.gram.gram_taps` of one run. Kernels larger than 3x3 show their inner 3x3.
    """
    figure = _positions(taps, "epoch")
    for axis in figure.axes[:3]:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure


def multiplier_over_k(taps: pd.DataFrame) -> Figure:
    """Multiplier at the centre, edges and corners of the kernel against k, a line for each layer; 1 is plain training.

    ``taps`` is :func:`research.frames.gram.gram_taps` of one measurement at several k.
    """
    figure = _positions(taps, "k")
    for axis in figure.axes[:3]:
        axis.set_xscale("log", base=4)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return figure


def tap_profile(taps: pd.DataFrame) -> Figure:
    """Mean multiplier against distance from the kernel's centre, a line for each layer, newest epoch of ``taps``."""
    newest = taps[taps["epoch"] == taps["epoch"].max()]
    with style():
        figure, axis = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
        means = newest.groupby(["depth", "distance"])["multiplier"].mean()
        for depth, colour in zip(range(newest["depth"].max() + 1), ramp(newest["depth"].max() + 1), strict=True):
            axis.plot(means[depth].index, means[depth], color=colour, marker="o")
        axis.axhline(1, color="0.5", linewidth=0.6, linestyle="--")
        axis.set(xlabel="distance from the centre (pixels)", ylabel="mean multiplier")
        _log_when_wide(axis, means.to_numpy())
        _name_layers(figure, newest)
        plt.close(figure)
    return figure


def horizontal_and_vertical(taps: pd.DataFrame) -> Figure:
    """Mean multiplier of the two horizontal and the two vertical neighbours of the centre, newest epoch of ``taps``.

    A row a layer, in order of depth downwards.
    """
    newest = taps[(taps["epoch"] == taps["epoch"].max()) & (taps["distance"] == 1)]
    means = newest.groupby(["depth", newest["dy"] == 0])["multiplier"].mean().unstack()
    names = newest.groupby("depth")["layer"].first()
    with style():
        size = (COLUMN, min(0.9 + 0.17 * len(names), TALLEST))
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        axis.hlines(names.index, means.min(axis=1), means.max(axis=1), color="0.7", linewidth=1)
        for flat, label, colour in zip((True, False), ("horizontal", "vertical"), colours(2), strict=True):
            axis.plot(means[flat], means.index, "o", color=colour, label=label)
        axis.axvline(1, color="0.5", linewidth=0.6, linestyle="--")
        axis.set(xlabel="multiplier of the direct neighbours", ylabel="layer", ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(names.index, names, fontsize=min(7, 72 * 0.8 * (size[1] - 0.9) / len(names)))
        figure.legend(loc="outside upper center", ncols=2)
        plt.close(figure)
    return figure


def _positions(taps: pd.DataFrame, along: str) -> Figure:
    offsets = np.sort(taps[["dy", "dx"]].abs().to_numpy(), axis=1)
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.3), layout="constrained")
        for axis, (position, offset) in zip(axes, POSITIONS.items(), strict=True):
            means = taps[(offsets == offset).all(axis=1)].groupby(["depth", along])["multiplier"].mean().unstack(0)
            for depth, colour in zip(means.columns, ramp(taps["depth"].max() + 1), strict=True):
                # epochs are counted from 1 where people read them
                axis.plot(means.index + (along == "epoch"), means[depth], color=colour, marker="o")
            axis.axhline(1, color="0.5", linewidth=0.6, linestyle="--")
            axis.set(xlabel=along, ylabel=f"multiplier, {position}")
            _log_when_wide(axis, means.to_numpy())
        _name_layers(figure, taps)
        plt.close(figure)
    return figure


def _log_when_wide(axis: Axes, values: np.ndarray) -> None:
    """A 7x7 stem's multipliers span three decades; those of 3x3 kernels read better on a linear axis."""
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _name_layers(figure: Figure, taps: pd.DataFrame) -> None:
    """A legend of layers by depth; only a scale of depth when they are many."""
    names = taps.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    shades = ramp(len(names))
    if len(names) <= 9:
        handles = [plt.Line2D([], [], color=c, marker="o", label=n) for c, n in zip(shades, names, strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if figure.get_figwidth() > COLUMN else 2)
    else:
        scale = plt.cm.ScalarMappable(Normalize(1, len(names)), ListedColormap(shades))
        figure.colorbar(scale, ax=figure.axes, label="depth (layer)", ticks=MaxNLocator(integer=True))
