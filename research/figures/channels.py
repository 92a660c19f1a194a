"""NMI of single channels, and that of independent data."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research.figures.correlation import arranged
from research.figures.style import COLUMN, PAGE, TALLEST, style
from research.frames.gram import GramRecord


def nmi_histogram(record: GramRecord) -> Figure:
    """NMI (k = 1) of every channel with its neighbours, a row for each layer, and what independent data would show.

    The dashed line is the finite-sample floor: the mean of the estimator for independent normal data of as many pairs.
    """
    floors = [independent_floor(layer.samples, layer.bins) for layer in record.layers]
    most = max([*floors, *(np.max(_neighbours(layer.nmi), initial=0.01) for layer in record.layers)])
    bins = np.linspace(0, 1.02 * most, 51)
    rows, blocks = arranged(len(record.layers))
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


def _neighbours(nmi: np.ndarray) -> np.ndarray:
    """(C, kh, kw) -> the defined values off the centre, flat."""
    off = np.ones(nmi.shape[1:], dtype=bool)
    off[(nmi.shape[1] - 1) // 2, (nmi.shape[2] - 1) // 2] = False
    values = nmi[:, off].ravel()
    return values[~np.isnan(values)]
