"""What GraM measured: how strongly neighbouring pixels depend on each other, and the multipliers made from it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from research.figures.style import COLUMN, PAGE, TALLEST, ramp, style
from research.frames import GramRecord

POSITIONS = {"centre": (0, 0), "edge": (0, 1), "corner": (1, 1)}  # sorted (|dy|, |dx|) of the one-hop neighbourhood


def nmi_matrices(record: GramRecord) -> Figure:
    """Two heat maps a layer: correlation matrix (mean NMI-k over channels) and gradient multiplier.

    Layers read downwards in order of depth, then from block to block.
    """
    rows, blocks = _arranged(len(record.layers))
    height = min(0.85 * rows + 0.55, TALLEST)
    written = (height - 0.55) / rows > 0.6  # inches that leave room for numbers
    looks = {
        "corr": (f"NMI-{record.k:g}", "viridis", Normalize(0, 1)),
        "multiplier": ("multiplier", "RdBu_r", LogNorm(1 / 8, 8)),  # white = 1; stronger ones keep the last colour
    }
    with style():
        size = (COLUMN if blocks == 1 else PAGE, height)
        figure, axes = plt.subplots(rows, 2 * blocks, figsize=size, layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for place, layer in enumerate(record.layers):
            pair = axes[place % rows, place // rows * 2 :]
            for axis, (kind, (_, cmap, norm)) in zip(pair, looks.items(), strict=False):
                _heat(axis, getattr(layer, kind), cmap, norm, written)
            pair[0].text(-0.1, 0.5, layer.name, transform=pair[0].transAxes, ha="right", va="center", fontsize=7)
        for column, look in enumerate(looks.values()):
            # one block: each scale below its column; several: both below everything
            _colour_scale(figure, axes[:, column] if blocks == 1 else axes, 15 * blocks, *look)
        plt.close(figure)
    return figure


def multiplier_over_epochs(taps: pd.DataFrame) -> Figure:
    """Multiplier at the centre, edges and corners of the kernel against epochs, a line for each layer.

    ``taps`` is :func:`research.frames.gram_taps` of one run. Kernels larger than 3x3 show their inner 3x3.
    """
    offsets = np.sort(taps[["dy", "dx"]].abs().to_numpy(), axis=1)
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.3), layout="constrained")
        for axis, (position, offset) in zip(axes, POSITIONS.items(), strict=True):
            means = taps[(offsets == offset).all(axis=1)].groupby(["depth", "epoch"])["multiplier"].mean().unstack(0)
            for depth, colour in zip(means.columns, ramp(taps["depth"].max() + 1), strict=True):
                axis.plot(means.index + 1, means[depth], color=colour, marker="o")
            axis.axhline(1, color="0.5", linewidth=0.6, linestyle="--")
            axis.set(xlabel="epoch", ylabel=f"multiplier, {position}")
            _log_when_wide(axis, means.to_numpy())
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _name_layers(figure, taps)
        plt.close(figure)
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


def nmi_histogram(record: GramRecord) -> Figure:
    """NMI (k = 1) of every channel with its neighbours, a row for each layer, and what independent data would show.

    The dashed line is the finite-sample floor: the mean of the estimator for independent normal data of as many pairs.
    """
    floors = [independent_floor(layer.samples, layer.bins) for layer in record.layers]
    most = max([*floors, *(np.max(_neighbours(layer.nmi), initial=0.01) for layer in record.layers)])
    bins = np.linspace(0, 1.02 * most, 51)
    rows, blocks = _arranged(len(record.layers))
    with style():
        size = (COLUMN if blocks == 1 else PAGE, min(0.45 * rows + 0.8, TALLEST))
        figure, axes = plt.subplots(rows, blocks, figsize=size, sharex=True, layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.set(yticks=[], xlim=(0, bins[-1]))
            axis.spines["left"].set_visible(False)
            axis.grid(False)
        for axis, layer, floor in zip(axes.T.flat, record.layers, floors, strict=False):
            values = _neighbours(layer.nmi)
            axis.hist(values, bins, color="#0072B2", weights=np.full(len(values), 1 / max(1, len(values))))
            line = axis.axvline(floor, color="#D55E00", linestyle="--", linewidth=0.8, label="independent data")
            note = f"{layer.name}  n = {len(layer.nmi)} channels, {layer.samples:,} pairs"
            axis.text(1, 1, note, transform=axis.transAxes, ha="right", va="bottom", fontsize=5.5)
        figure.supxlabel("NMI of a channel with one neighbour", fontsize=8)
        figure.supylabel("share of channels and taps", fontsize=8)
        figure.legend(handles=[line], loc="outside upper center")
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


def _arranged(layers: int) -> tuple[int, int]:
    """Rows and blocks of a page for so many layers."""
    blocks = min(3, math.ceil(layers / 9))
    return math.ceil(layers / blocks), blocks


def _colour_scale(figure: Figure, axes: np.ndarray, aspect: int, label: str, cmap: str, norm: Normalize) -> None:
    scale = plt.cm.ScalarMappable(norm, cmap)
    bar = figure.colorbar(scale, ax=axes, location="bottom", label=label, fraction=0.05, aspect=aspect, pad=0.02)
    bar.outline.set_visible(False)
    middle = 1 if isinstance(norm, LogNorm) else 0.5
    bar.set_ticks([norm.vmin, middle, norm.vmax], labels=[f"{value:g}" for value in (norm.vmin, middle, norm.vmax)])
    bar.minorticks_off()


def _heat(axis: Axes, matrix: np.ndarray, cmap: str, norm: Normalize, written: bool) -> None:
    axis.imshow(matrix, cmap=cmap, norm=norm)
    if written and matrix.size <= 9:
        for (i, j), value in np.ndenumerate(matrix):
            red, green, blue, _ = plt.get_cmap(cmap)(norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color="white" if dark else "black")


def _log_when_wide(axis: Axes, values: np.ndarray) -> None:
    """A 7x7 stem's multipliers span three decades; those of 3x3 kernels read better on a linear axis."""
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _neighbours(nmi: np.ndarray) -> np.ndarray:
    """(C, kh, kw) -> the defined values off the centre, flat."""
    off = np.ones(nmi.shape[1:], dtype=bool)
    off[(nmi.shape[1] - 1) // 2, (nmi.shape[2] - 1) // 2] = False
    values = nmi[:, off].ravel()
    return values[~np.isnan(values)]


def _name_layers(figure: Figure, taps: pd.DataFrame) -> None:
    """A legend of layers by depth; only a scale of depth when they are many."""
    names = taps.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    shades = ramp(len(names))
    if len(names) <= 9:
        handles = [plt.Line2D([], [], color=c, marker="o", label=n) for c, n in zip(shades, names, strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if figure.get_figwidth() > COLUMN else 2)
    else:
        scale = plt.cm.ScalarMappable(Normalize(1, len(names)), ListedColormap(shades))
        figure.colorbar(scale, ax=figure.axes, label="depth (layer)")
