"""Correlation matrices and gradient multipliers as heat maps, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from research.errors import UsageError
from research.figures.style import COLUMN, PAGE, TALLEST, style
from research.frames.gram import GramRecord, at_k

KS = (1, 2, 4, 8, 16, 32, 64, 256)  # of the published study
STRIP = 12  # columns of a strip at most
MULTIPLIER = ("multiplier", "RdBu_r", LogNorm(1 / 8, 8))  # white = 1; stronger ones keep the last colour


def nmi_matrices(record: GramRecord) -> Figure:
    """Two heat maps a layer: correlation matrix (mean NMI-k over channels) and gradient multiplier.

    Layers read downwards in order of depth, then from block to block.
    """
    rows, blocks = arranged(len(record.layers))
    height = min(0.85 * rows + 0.55, TALLEST)
    written = (height - 0.55) / rows > 0.6  # inches that leave room for numbers
    with style():
        size = (COLUMN if blocks == 1 else PAGE, height)
        figure, axes = plt.subplots(rows, 2 * blocks, figsize=size, layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for place, layer in enumerate(record.layers):
            pair = axes[place % rows, place // rows * 2 :]
            for axis, (kind, (_, cmap, norm)) in zip(pair, _looks(record).items(), strict=False):
                heat(axis, getattr(layer, kind), cmap, norm, written and layer.corr.size <= 9)
            pair[0].text(-0.1, 0.5, layer.name, transform=pair[0].transAxes, ha="right", va="center", fontsize=7)
        for column, look in enumerate(_looks(record).values()):
            # one block: each scale below its column; several: both below everything
            _colour_scale(figure, axes[:, column] if blocks == 1 else axes, 15 * blocks, *look)
        plt.close(figure)
    return figure


def wide_kernels(record: GramRecord) -> Figure:
    """Correlation matrix and multiplier, in numbers, of the layers with kernels larger than 3x3, such as a 7x7 stem.

    Raises:
        UsageError: there is no such layer.
    """
    layers = [layer for layer in record.layers if layer.corr.size > 9]
    if not layers:
        raise UsageError("no measured layer has a kernel larger than 3x3")
    with style():
        size = (PAGE, min(3.2 * len(layers) + 0.3, TALLEST))
        figure, axes = plt.subplots(len(layers), 2, figsize=size, layout="constrained", squeeze=False)
        for pair, layer in zip(axes, layers, strict=True):
            for axis, (kind, (_, cmap, norm)) in zip(pair, _looks(record).items(), strict=True):
                height, width = layer.corr.shape
                top, left = -((height - 1) // 2) - 0.5, -((width - 1) // 2) - 0.5
                extent = (left, left + width, top + height, top)
                heat(axis, getattr(layer, kind), cmap, norm, written=True, extent=extent)
                axis.grid(False)
                axis.set(xlabel="dx (pixels)", ylabel=f"{layer.name}, dy (pixels)")
        for column, look in enumerate(_looks(record).values()):
            _colour_scale(figure, axes[:, column], 30, *look)
        plt.close(figure)
    return figure


def multipliers_of_ks(record: GramRecord, ks: Sequence[float] = KS) -> Figure:
    """The multipliers that each ``k`` makes of one measurement: a row a layer, a column a k."""
    return _strip([at_k(record, k) for k in ks], [f"{k:g}" for k in ks], "k")


def multipliers_of_epochs(records: Sequence[GramRecord]) -> Figure:
    """The multipliers of a run over its epochs: a row per layer, a column per epoch; of many, evenly spaced ones."""
    shown = np.unique(np.linspace(0, len(records) - 1, min(len(records), STRIP)).round().astype(int))
    chosen = [records[place] for place in shown]
    return _strip(chosen, [str(record.epoch + 1) for record in chosen], "epoch")


def arranged(layers: int) -> tuple[int, int]:
    """Rows and blocks of a page for so many layers."""
    blocks = min(3, math.ceil(layers / 9))
    return math.ceil(layers / blocks), blocks


def _strip(records: Sequence[GramRecord], labels: Sequence[str], quantity: str) -> Figure:
    names = list(dict.fromkeys(layer.name for record in records for layer in record.layers))
    _, cmap, norm = MULTIPLIER
    with style():
        side = min(0.55, (PAGE - 1.4) / len(records), (TALLEST - 0.9) / len(names))
        size = (1.4 + side * len(records), 0.9 + side * len(names))
        figure, axes = plt.subplots(len(names), len(records), figsize=size, layout="constrained", squeeze=False)
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.04, hspace=0.04)
        for axis in axes.flat:
            axis.axis("off")
        for column, record in enumerate(records):
            for layer in record.layers:
                heat(axes[names.index(layer.name), column], layer.multiplier, cmap, norm, written=False)
            axes[-1, column].text(
                *(0.5, -0.15), labels[column], transform=axes[-1, column].transAxes, ha="center", va="top", fontsize=7
            )
        for axis, name in zip(axes[:, 0], names, strict=True):
            axis.text(-0.15, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=min(7, 70 * side))
        figure.supxlabel(quantity, fontsize=8)
        _colour_scale(figure, axes, 15, *MULTIPLIER, location="top")
        plt.close(figure)
    return figure


def _looks(record: GramRecord) -> dict[str, tuple[str, str, Normalize]]:
    """Label, colour map and scale of each quantity of a layer."""
    return {"corr": (f"NMI-{record.k:g}", "viridis", Normalize(0, 1)), "multiplier": MULTIPLIER}


def _colour_scale(
    figure: Figure, axes: np.ndarray, aspect: int, label: str, cmap: str, norm: Normalize, location: str = "bottom"
) -> None:
    scale = plt.cm.ScalarMappable(norm, cmap)
    bar = figure.colorbar(scale, ax=axes, location=location, label=label, fraction=0.05, aspect=aspect, pad=0.02)
    bar.outline.set_visible(False)
    middle = 1 if isinstance(norm, LogNorm) else 0.5
    bar.set_ticks([norm.vmin, middle, norm.vmax], labels=[f"{value:g}" for value in (norm.vmin, middle, norm.vmax)])
    bar.minorticks_off()


def heat(axis: Axes, matrix: np.ndarray, cmap: str, norm: Normalize, written: bool, extent=None) -> None:
    """``matrix`` (kh, kw) as coloured squares, with its numbers in them if ``written``."""
    image = axis.imshow(matrix, cmap=cmap, norm=norm, extent=extent)
    left, _, _, top = image.get_extent()
    if written:
        for (i, j), value in np.ndenumerate(matrix):
            red, green, blue, _ = plt.get_cmap(cmap)(norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            at = (left + j + 0.5, top + i + 0.5)
            axis.text(*at, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color="white" if dark else "black")
