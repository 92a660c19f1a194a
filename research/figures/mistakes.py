"""What a classifier gets wrong: classes, what they are taken for, and the pictures it was most sure of.

Numbers are those of :mod:`research.measures.mistakes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.errors import UsageError
from research.figures.legends import legend_below
from research.figures.style import BLUE, COLUMN, PAGE, style
from research.measures.mistakes import OfClass

WRITTEN = 12  # classes of a confusion matrix with numbers in it
ROWS = 40  # classes of a column with names


def accuracy_by_class(classes: Sequence[OfClass], names: Sequence[str] = ()) -> Figure:
    """Accuracy on the images of each class with its 95 % interval, the worst on top; dashed: all images.

    Of more than forty classes the forty worst are drawn, and the axis says so. ``names`` are those of the classes.

    Raises:
        UsageError: there is no image.
    """
    counted = [each for each in classes if each.images]
    if not counted:
        raise UsageError("there is no image, so there is no accuracy to draw")
    total = np.average([each.accuracy for each in counted], weights=[each.images for each in counted])
    shown = sorted(counted, key=lambda each: each.accuracy)[:ROWS]
    with style():
        figure, axis = plt.subplots(figsize=(COLUMN, 0.5 + 0.17 * len(shown)), layout="constrained")
        places = np.arange(len(shown))
        axis.axvline(total, color="0.5", linewidth=0.8, linestyle="--")
        axis.hlines(places, [each.low for each in shown], [each.high for each in shown], color=BLUE, linewidth=0.9)
        axis.plot([each.accuracy for each in shown], places, "o", color=BLUE)
        few = "" if len(shown) == len(counted) else f", the {ROWS} worst of {len(counted)}"
        axis.set(xlabel="accuracy (%)", ylabel=f"class{few}", ylim=(len(shown) - 0.5, -0.5))
        axis.set_yticks(places, [_name(each.label, names) for each in shown])
        axis.grid(False, axis="y")
        one = Line2D([], [], color=BLUE, marker="o", linewidth=0.9, label="a class, 95 % interval")
        legend_below(figure, [one, Line2D([], [], color="0.5", linestyle="--", linewidth=0.8, label="all images")])
        plt.close(figure)
    return figure


def confusion_matrix(matrix: np.ndarray, names: Sequence[str] = ()) -> Figure:
    """What the images of every class (row) were taken for (column): shares of the row, in percent.

    ``matrix`` is (C, C) counts. Mistakes have a scale of their own, since a few percent would not be seen beside the
    diagonal, which is left white; up to twelve classes have their counts written, on the diagonal too.
    """
    count = len(matrix)
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    mistakes = np.where(np.eye(count, dtype=bool), np.nan, shares)
    most = max(1.0, float(np.nanmax(mistakes, initial=0.0)))
    written = count <= WRITTEN
    with style():
        width = COLUMN if written else PAGE
        figure, axis = plt.subplots(figsize=(width, 0.85 * width), layout="constrained")
        image = axis.imshow(mistakes, cmap="Blues", norm=Normalize(0, most))
        if written:
            for (i, j), images in np.ndenumerate(matrix):
                if images:
                    dark = i != j and shares[i, j] > 0.6 * most
                    axis.text(
                        j, i, f"{images}", ha="center", va="center", fontsize=5.5, color="white" if dark else "0.1"
                    )
        figure.colorbar(image, ax=axis, label="mistakes (% of the row)", pad=0.02, aspect=30).outline.set_visible(False)
        axis.set(xlabel="taken for", ylabel="class")
        axis.grid(False)
        if count <= ROWS:
            labels = [_name(label, names) for label in range(count)]
            upright = max(map(len, labels)) > 3
            axis.set_xticks(range(count), labels, rotation=90 if upright else 0)
            axis.set_yticks(range(count), labels)
        plt.close(figure)
    return figure


def mistaken_pictures(
    pictures: np.ndarray, labels: Sequence[int], said: Sequence[int], confidence: Sequence[float],
    names: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Pictures (M, H, W) or (M, H, W, 3) in 0..1, each with its class, what it was taken for and how confidently.

    Raises:
        UsageError: there is none.
    """
    if not len(pictures):
        raise UsageError("there is no mistake to show")
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    with style():
        side = PAGE / 6
        size = (PAGE if columns > 3 else COLUMN, rows * (side + 0.3))
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, picture, label, taken, sure in zip(axes.flat, pictures, labels, said, confidence, strict=False):
            axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
            told = f"{_name(label, names)} as {_name(taken, names)}\n{100 * sure:.1f} %"
            axis.text(0.5, 1.03, told, transform=axis.transAxes, ha="center", va="bottom", fontsize=6)
        plt.close(figure)
    return figure


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if len(names) > label else str(label)
