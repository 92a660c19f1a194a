"""Images of a data set, and what augmentation makes of them from epoch to epoch."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.data.seen import Seen
from research.figures.style import PAGE, TALLEST, style


def augmented_images(seen: Seen) -> Figure:
    """A row an image: as evaluation would see it, then its forms in each epoch; an empty place where it is left out."""
    rows, columns = len(seen.images), 1 + len(seen.epochs)
    with style():
        side = min(0.95, (PAGE - 0.6) / columns, (TALLEST - 0.4) / rows)
        size = (0.6 + side * columns, 0.4 + side * rows)
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        for place, line in enumerate(axes):
            _picture(line[0], seen.plain[place])
            line[0].set_ylabel(f"image {seen.images[place]}\nclass {seen.labels[place]}", fontsize=6)
            for axis, picture, share in zip(line[1:], seen.augmented[place], seen.shares[place], strict=True):
                _picture(axis, picture)
                if share < 1:
                    axis.set_xlabel(f"{share:.0%} class {seen.labels[place]}", fontsize=6, labelpad=1)
        for axis, label in zip(axes[0], ["plain", *(f"epoch {epoch + 1}" for epoch in seen.epochs)], strict=True):
            axis.set_title(label, fontsize=7, pad=2)
        plt.close(figure)
    return figure


def _picture(axis: Axes, picture: np.ndarray) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if np.isnan(picture).all():
        axis.text(0.5, 0.5, "left\nout", transform=axis.transAxes, ha="center", va="center", fontsize=6)
    else:
        axis.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
