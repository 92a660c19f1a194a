"""Multipliers of single taps as lines: over epochs, k and distance, horizontal against vertical; NMI of channels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from research.figures.correlation import arranged
from research.figures.legends import legend_below, scale_beside
from research.figures.style import BLUE, COLUMN, FEW, PAGE, RED, TALLEST, ramp, style
from research.frames.gram import GramRecord

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
        size = (COLUMN, min(0.7 + 0.17 * len(names), TALLEST - 0.3))
        figure, axis = plt.subplots(figsize=size, layout="constrained")
        axis.hlines(names.index, means.min(axis=1), means.max(axis=1), color="0.7", linewidth=1)
        for flat, label, colour in zip((True, False), ("horizontal", "vertical"), (BLUE, RED), strict=True):
            axis.plot(means[flat], means.index, "o", color=colour, label=label)
        axis.axvline(1, color="0.5", linewidth=0.6, linestyle="--")
        axis.set(xlabel="multiplier of the direct neighbours", ylabel="layer", ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(names.index, names, fontsize=min(7, 45 * (size[1] - 0.7) / len(names)))
        legend_below(figure, axis.lines[:2])
        plt.close(figure)
    return figure


def nmi_histogram(record: GramRecord) -> Figure:
    """NMI (k = 1) of every channel with its neighbours, a row for each layer, and what independent data would show.

    The dashed line is the finite-sample floor: the mean of the estimator for independent normal data of as many pairs.
    """
    floors = [independent_floor(layer.samples, layer.bins) for layer in record.layers]
    most = max([*floors, *(np.max(_neighbours(layer.nmi), initial=0.01) for layer in record.layers)])
    bins = np.linspace(0, 1.02 * most, 51)
    rows, blocks = arranged(len(record.layers))
    with style():
        size = (COLUMN if blocks == 1 else PAGE, min(max(2.1, 0.45 * rows + 0.6), TALLEST - 0.2))
        figure, axes = plt.subplots(rows, blocks, figsize=size, sharex=True, layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.set(yticks=[], xlim=(0, bins[-1]))
            axis.spines["left"].set_visible(False)
            axis.grid(False)
        for axis, layer, floor in zip(axes.T.flat, record.layers, floors, strict=False):
            values = _neighbours(layer.nmi)
            axis.hist(values, bins, color=BLUE, weights=np.full(len(values), 1 / max(1, len(values))))
            line = axis.axvline(floor, color=RED, linestyle="--", linewidth=0.8, label="independent data")
            note = f"{layer.name}  n = {len(layer.nmi)} channels, {layer.samples:,} pairs"
            axis.text(1, 1, note, transform=axis.transAxes, ha="right", va="bottom", fontsize=5.5)
        figure.supxlabel("NMI of a channel with one neighbour", fontsize=8)
        figure.supylabel("share of channels and taps", fontsize=8)
        legend_below(figure, [line])
        plt.close(figure)
    return figure


def independent_floor(samples: int, bins: int) -> float:
    """Expected NMI estimate of two independent normal variables from ``samples`` pairs in ``bins`` x ``bins`` cells.

    Miller and Madow's bias of the mutual information, (b - 1)^2 / (2 n ln 2) bits, over the joint entropy of two
    normal histograms whose range is that of a sample of n, 2 sqrt(2 ln n) standard deviations nearly.
    """
    if bins < 2:
        return 0.0
    spread = math.sqrt(2 * math.log(samples))
    extent = spread - (math.log(math.log(samples)) + math.log(4 * math.pi)) / (2 * spread)  # expected maximum
    entropy = 2 * (math.log2(math.sqrt(2 * math.pi * math.e)) - math.log2(2 * extent / bins))
    return (bins - 1) ** 2 / (2 * samples * math.log(2)) / entropy


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
    if len(names) <= FEW:
        handles = [plt.Line2D([], [], color=c, marker="o", label=n) for c, n in zip(shades, names, strict=True)]
        legend_below(figure, handles)
    else:
        scale_beside(figure, figure.axes, range(1, len(names) + 1), "depth (layer)")


def _neighbours(nmi: np.ndarray) -> np.ndarray:
    """(C, kh, kw) -> the defined values off the centre, flat."""
    off = np.ones(nmi.shape[1:], dtype=bool)
    off[(nmi.shape[1] - 1) // 2, (nmi.shape[2] - 1) // 2] = False
    values = nmi[:, off].ravel()
    return values[~np.isnan(values)]
