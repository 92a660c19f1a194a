"""Legends that fit, and lines of many configurations told apart: by colour, by group, by a number at their end."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from research.figures.style import FEW, PALETTE, TALLEST, Look, look, looks, ramp

NAMED = 12  # lines with a number at their end: no more are found on a panel
CHARACTER = 0.058  # inches, of a label's 7 pt
HANDLE = 0.6  # inches beside a label: its handle and the space around


@dataclass(frozen=True)
class Lines:
    """How the lines of configurations are told apart."""

    looks: Mapping[str, Look]  # of every line
    numbers: Mapping[str, int]  # at the ends of those that are named so; none where colours tell all apart
    handles: list[Line2D]  # of the lines that are named, for the legend
    groups: Sequence[Line2D] = ()  # of the methods that colours mean, where there are more

    @property
    def crowded(self) -> bool:
        """Whether there are more lines than colours tell apart."""
        return len(self.looks) > FEW


def tell_apart(methods: Mapping[str, str], best: Sequence[str] = ()) -> Lines:
    """A colour for each of up to eight configurations (name -> method); of more, a colour for each method.

    Of more than eight the first twelve of ``best`` (without it: of ``methods``) have a number, too.
    """
    if len(methods) <= FEW:
        own = looks(methods)
        return Lines(own, {}, [Line2D([], [], color=each.colour, label=name) for name, each in own.items()])
    counted = Counter(methods.values())
    if len(counted) > len(PALETTE):
        methods, counted = dict.fromkeys(methods, ""), Counter({"": len(methods)})
    of_method = looks({method: method for method in counted}) if len(counted) > 1 else {m: look(m) for m in counted}
    own = {name: of_method[method] for name, method in methods.items()}
    numbers = {name: place for place, name in enumerate([*(best or methods)][:NAMED], start=1)}
    groups = [
        Line2D([], [], color=of_method[method].colour, label=f"{look(method).name or 'all'}: {count} configurations")
        for method, count in counted.items()
        if count > 1
    ]
    named = [
        Line2D([], [], linewidth=0, marker=f"${number}$", color=own[name].colour, label=name, **_digits(number))
        for name, number in numbers.items()
    ]
    return Lines(own, numbers, named, groups)


def _digits(number: int) -> dict[str, float]:
    return {"markersize": 4.5 if number < 10 else 7, "markeredgewidth": 0}


def number_ends(axis: Axes, ends: Mapping[str, tuple[float, float]], lines: Lines) -> None:
    """Right of ``axis``, the number of every line that has one, tied to its end (x, y). Call it after drawing."""
    named = {name: ends[name] for name in lines.numbers if name in ends and np.isfinite(ends[name]).all()}
    if not named:
        return
    axis.get_ylim()  # settles the limits
    at = axis.transAxes.inverted().transform(axis.transData.transform(list(named.values())))[:, 1]
    for (name, end), height in zip(named.items(), spread(at, 0.065), strict=True):
        axis.annotate(
            str(lines.numbers[name]), end, (1.04, height), textcoords="axes fraction", va="center", fontsize=6,
            color=lines.looks[name].colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": "0.6", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def spread(wished: Iterable[float], gap: float) -> np.ndarray:
    """Places at least ``gap`` apart, as near as can be to those ``wished``, in 0 … 1 while that has room for them."""
    wished = np.asarray(list(wished), dtype=float)
    order = np.argsort(wished, kind="stable")
    steps = gap * np.arange(len(wished))
    placed = np.empty_like(wished)
    placed[order] = np.clip(isotonic_regression(wished[order] - steps).x, 0, max(0, 1 - steps[-1])) + steps
    return placed


def legend_below(
    figure: Figure, handles: Iterable[Artist], title: str | None = None, where: str = "lower center"
) -> None:
    """A legend below all axes (``where``: or above) in as many columns as fit; the figure gets taller by its height.

    Labels wider than the figure are wrapped; of more handles than a page has room for, the first are shown and the
    others counted.
    """
    shown = [handle for handle in handles if handle.get_label()]
    if not shown:
        return
    wide = int((figure.get_figwidth() - HANDLE) / CHARACTER)
    for handle in shown:
        handle.set_label(textwrap.fill(handle.get_label(), wide))
    height, room = _placed(figure, shown, title, where), TALLEST - figure.get_figheight()
    if height > room and (kept := int(len(shown) * room / height) - 2) < len(shown):
        kept = max(1, kept)
        figure.legends[-1].remove()
        rest = Line2D([], [], linewidth=0, label=f"and {len(shown) - kept} more")
        height = _placed(figure, [*shown[:kept], rest], title, where)
    figure.set_figheight(figure.get_figheight() + height)


def _placed(figure: Figure, handles: Sequence[Artist], title: str | None, where: str) -> float:
    """The height, in inches, of a legend of as many columns as are narrower than the figure."""
    for columns in range(min(len(handles), 6), 0, -1):
        legend = figure.legend(handles=handles, loc=f"outside {where}", ncols=columns, title=title, alignment="left")
        box = legend.get_window_extent()
        if columns == 1 or box.width <= 0.98 * figure.get_figwidth() * figure.dpi:
            return box.height / figure.dpi
        legend.remove()
    raise AssertionError("one column is always placed")


def legend_above(axis: Axes, columns: int = 1, title: str | None = None) -> None:
    """A legend of what is labelled in ``axis`` above it, where no data are."""
    axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, title=title, alignment="left"
    )  # fmt: skip


def scale_beside(figure: Figure, axes: Sequence[Axes], values: Sequence[float], label: str) -> None:
    """A colour scale of ``values``, in order, right of ``axes``: for more lines than a legend names."""
    values = sorted(values)
    scale = ScalarMappable(Normalize(0, len(values) - 1), ListedColormap(ramp(len(values))))
    bar = figure.colorbar(scale, ax=axes, label=label, pad=0.02, aspect=30)
    shown = np.unique(np.linspace(0, len(values) - 1, 5).round().astype(int))
    bar.set_ticks(shown, labels=[f"{values[place]:.3g}" for place in shown])
    bar.outline.set_visible(False)


def legend_beside(axis: Axes, handles: Sequence[Artist]) -> None:
    """A legend right of ``axis``, of labels that are shortened so that a panel keeps most of the page."""
    for handle in handles:
        handle.set_label(shortened(handle.get_label(), 34))
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.06, 0.5))


def shortened(text: str, most: int) -> str:
    """``text`` of at most so many characters, without some of its middle: both ends tell configurations apart."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
