"""NN-Mass against accuracy and LDI, and networks of equal mass (Bhardwaj, Li and Marculescu 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from research.errors import UsageError
from research.figures.legends import legend_above, legend_below, scale_beside
from research.figures.style import FEW, PAGE, PALETTE, colours, ramp, seeds, style
from research.frames.topology import over_seeds

MARKERS = "osD^vP*Xhd<>"
LABELS = {
    "nn_mass": "NN-Mass",
    "params": "parameters",
    "top1": "test accuracy (%)",
    "ldi_exact": "LDI (mean singular value)",
    "ldi_reference": "LDI, published slopes",
}


def accuracy_against_mass(points: pd.DataFrame, correlated: pd.DataFrame | None = None) -> Figure:
    """Accuracy against NN-Mass, and against parameters; colour and marker are depth. Seeds are dots beside their mean.

    ``points`` is :func:`research.frames.topology.topology_points` of one population. Where some have no links and
    others do, a second row shows those that do. ``correlated`` (:func:`research.frames.topology.correlations`) writes
    Spearman with its interval over networks into the panels.

    Raises:
        UsageError: no accuracy was measured.
    """
    points = points.dropna(subset="top1")
    if points.empty:
        raise UsageError("no run with NN-Mass has finished, so there is no accuracy to draw")
    networks = over_seeds(points)
    linked = networks[networks["nn_mass"] > 0]
    parts = [networks] if len(linked) in (0, len(networks)) else [networks, linked]
    looks = _looks(networks)
    with style():
        size = (PAGE, 0.2 + 2.0 * len(parts))
        figure, axes = plt.subplots(len(parts), 2, figsize=size, sharey="row", squeeze=False, layout="constrained")
        for part, row in zip(parts, axes, strict=True):
            for axis, x in zip(row, ("nn_mass", "params"), strict=True):
                for run in points[points["nn_mass"] > 0 if part is linked else points["nn_mass"] >= 0].itertuples():
                    seeds(axis, getattr(run, x), [run.top1], looks[run.width, run.depth][0])
                _points(axis, part.drop(columns="top1_sd"), x, "top1", looks)
                _told(axis, correlated, x, "top1", part is linked)
                axis.set_xlabel(LABELS[x] + (", networks with links" if part is linked else ""))
            row[0].set_ylabel(LABELS["top1"])
            row[1].xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.0f}")
            row[1].xaxis.set_major_locator(MaxNLocator(5))
        _legend(figure, looks, bars=False)
        plt.close(figure)
    return figure


def ldi_against_mass(networks: pd.DataFrame, correlated: pd.DataFrame | None = None) -> Figure:
    """LDI before training against NN-Mass, exact and as the published program computes it, where that was measured.

    Bars: one deviation over initialisations. Arguments as of :func:`accuracy_against_mass`.

    Raises:
        UsageError: no LDI was measured.
    """
    panels = [name for name in ("ldi_exact", "ldi_reference") if networks[name].notna().any()]
    if not panels:
        raise UsageError("no run has LDI, so there is none to draw; measure it with a study's ldi: [exact]")
    looks = _looks(networks)
    with style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(PAGE, 2.3), squeeze=False, layout="constrained", width_ratios=(3, 2)[: len(panels)]
        )
        for axis, y in zip(axes[0], panels, strict=True):
            _points(axis, networks, "nn_mass", y, looks)
            _told(axis, correlated, "nn_mass", y)
            axis.set(xlabel=LABELS["nn_mass"], ylabel=LABELS[y])
        _legend(figure, looks)
        plt.close(figure)
    return figure


def accuracy_against_ldi(networks: pd.DataFrame, correlated: pd.DataFrame | None = None) -> Figure:
    """Accuracy after training against exact LDI before it; on the right, networks with links only.

    Raises:
        UsageError: no network has both.
    """
    networks = networks.dropna(subset=["top1", "ldi_exact"])
    if networks.empty:
        raise UsageError("no network has both accuracy and LDI, so they cannot be drawn against each other")
    linked = networks[networks["nn_mass"] > 0]
    parts = [networks] if len(linked) in (0, len(networks)) else [networks, linked]
    looks = _looks(networks)
    with style():
        figure, axes = plt.subplots(1, len(parts), figsize=(PAGE, 2.3), squeeze=False, layout="constrained")
        for axis, part in zip(axes[0], parts, strict=True):
            _points(axis, part, "ldi_exact", "top1", looks)
            _told(axis, correlated, "ldi_exact", "top1", part is linked)
            axis.set_xlabel("LDI before training" + (", networks with links" if part is linked else ""))
        axes[0, 0].set_ylabel(LABELS["top1"])
        _legend(figure, looks)
        plt.close(figure)
    return figure


def singular_values(values: Mapping[int, Mapping[float, np.ndarray]], bins: int = 40) -> Figure:
    """How the singular values of all layers' Jacobians are distributed before training, for each NN-Mass.

    ``values``: depth -> NN-Mass -> singular values of any number. A panel a depth, of at most four depths; dashes are
    means.
    """
    values = dict([*values.items()][:4])
    widest = max(float(np.quantile(v, 0.999)) for of_mass in values.values() for v in of_mass.values())
    edges = np.linspace(0, widest, bins + 1)
    with style():
        figure, axes = plt.subplots(
            1, len(values), figsize=(PAGE, 2.4), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (depth, of_mass) in zip(axes[0], values.items(), strict=True):
            for (mass, found), colour in zip(of_mass.items(), colours(len(of_mass)), strict=True):
                label = f"mass {mass:.0f}: {found.mean():.3f} ± {found.std():.3f}"
                axis.hist(found, edges, density=True, histtype="step", color=colour, linewidth=1.1, label=label)
                axis.axvline(found.mean(), color=colour, linestyle="--", linewidth=0.8)
            axis.set(xlabel=f"singular value, depth {depth}", xlim=(0, widest))
            if len(of_mass) <= FEW:
                legend_above(axis, title="mean ± s.d.")
            else:
                scale_beside(figure, [axis], list(of_mass), "NN-Mass")
        axes[0, 0].set_ylabel("density")
        plt.close(figure)
    return figure


def closed_forms(curves: pd.DataFrame, families: pd.DataFrame, mobile: pd.DataFrame) -> Figure:
    """Networks of equal mass, found without training.

    Left: the cap of MLPs of one width against depth (``curves``). Middle: parameters of CIFAR networks of one mass
    (``families``). Right: MobileNetV2 by width, and the deeper layout (``mobile``), from the plain network nearest to
    it in mass. All three are frames of :mod:`research.frames.topology`.
    """
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(PAGE, 2.8), layout="constrained")
        masses = sorted(curves["mass"].unique())
        for (mass, rows), colour in zip(curves.groupby("mass"), colours(len(masses)), strict=True):
            left.plot(rows["depth"], rows["tc"], color=colour, marker=".", label=f"mass {mass:g}")
        if len(masses) <= FEW:
            legend_above(left, columns=1 + (len(masses) > 3))
        else:
            scale_beside(figure, [left], masses, "NN-Mass")
        left.set(xlabel="depth of an MLP", ylabel="links of a layer, at most (tc)", ylim=(0, None))
        _families(middle, families)
        _mobilenets(right, mobile)
        plt.close(figure)
    return figure


def _families(axis: Axes, families: pd.DataFrame) -> None:
    for (mass, of_mass), colour in zip(families.groupby("mass"), PALETTE, strict=False):
        for (name, rows), (dash, marker) in zip(of_mass.groupby("network"), (("--", "s"), ("-", "o")), strict=False):
            label = f"{name}, {mass:g}"
            axis.plot(rows["cell_depth"], rows["params"], dash, color=colour, marker=marker, label=label)
    axis.set(xlabel="layers of a cell (CIFAR)", ylabel="parameters", yscale="log")
    axis.yaxis.set_major_formatter(_millions)
    legend_above(axis)


def _mobilenets(axis: Axes, mobile: pd.DataFrame) -> None:
    plain, deep = mobile[mobile["layout"] == "published"], mobile[mobile["layout"] == "compressed"].iloc[0]
    twin = plain.loc[(plain["nn_mass"] - deep["nn_mass"]).abs().idxmin()]
    axis.plot(plain["params"], plain["nn_mass"], "-o", color=PALETTE[0], label="published, by width")
    for row in plain.itertuples():
        at = (row.params, row.nn_mass)
        axis.annotate(f"{row.width_mult:g}", at, (4, -4), textcoords="offset points", va="top", fontsize=7)
    arrow = {"arrowstyle": "->", "color": "0.4", "linewidth": 0.8}
    axis.annotate("", (deep["params"], deep["nn_mass"]), (twin["params"], twin["nn_mass"]), arrowprops=arrow)
    saved = [100 * (deep[cost] / twin[cost] - 1) for cost in ("params", "mult_adds")]
    told = f"deeper, against {twin['width_mult']:g}:\nparams {saved[0]:+.0f} %\nmult-adds {saved[1]:+.0f} %"
    axis.plot(deep["params"], deep["nn_mass"], "*", color=PALETTE[1], markersize=8, label=told)
    axis.set(xlabel="parameters (MobileNetV2)", ylabel="NN-Mass", ylim=(0, 1.3 * mobile["nn_mass"].max()))
    axis.xaxis.set_major_formatter(_millions)
    legend_above(axis)


@FuncFormatter
def _millions(value: float, _) -> str:
    return f"{value / 1e6:g}M"


Looks = Mapping[tuple[int, int], tuple[tuple[float, ...], str]]


def _looks(networks: pd.DataFrame) -> Looks:
    """(width, depth) -> colour and marker; depths by colour, and markers for the widths where there are several."""
    shapes = sorted(set(zip(networks["width"], networks["depth"], strict=True)), key=lambda shape: shape[::-1])
    widths, depths = (sorted({shape[at] for shape in shapes}) for at in (0, 1))
    shades = dict(zip(depths, ramp(len(depths)), strict=True))
    which = (widths, 0) if len(widths) > 1 else (depths, 1)
    return {shape: (shades[shape[1]], MARKERS[which[0].index(shape[which[1]]) % len(MARKERS)]) for shape in shapes}


def _points(axis: Axes, networks: pd.DataFrame, x: str, y: str, looks: Looks) -> None:
    """Draw means with bars of one deviation, also of x where it has one."""
    for (width, depth), (colour, marker) in looks.items():
        rows = networks[(networks["width"] == width) & (networks["depth"] == depth)]
        spread = {f"{way}err": rows[f"{of}_sd"].fillna(0.0) for way, of in (("x", x), ("y", y)) if f"{of}_sd" in rows}
        axis.errorbar(
            rows[x], rows[y], **spread,
            color=colour, marker=marker, markersize=4, linewidth=0, elinewidth=0.8, alpha=0.9,
        )  # fmt: skip


def _legend(figure: Figure, looks: Looks, bars: bool = True) -> None:
    """Shapes, and what bars or dots are; of more than eight depths a scale, with markers for the widths."""
    widths, depths = (list(dict.fromkeys(sorted(shape[at] for shape in looks))) for at in (0, 1))
    several = len(widths) > 1
    if len(depths) > FEW:
        scale_beside(figure, figure.axes, depths, "depth")
        shown = {f"{width} wide": ("0.3", looks[width, depth][1]) for width, depth in looks} if several else {}
    else:
        shown = {(f"{w} wide, {d} deep" if several else f"depth {d}"): look for (w, d), look in looks.items()}
    handles = [
        Line2D([], [], linewidth=0, color=colour, marker=marker, markersize=4, label=label)
        for label, (colour, marker) in shown.items()
    ]
    seed = Line2D([], [], linewidth=0, marker="o", markersize=2.5, color="0.3", alpha=0.6, label="dot: a seed")
    handles.append(Line2D([], [], color="0.3", linewidth=0.8, label="bar: ± s.d. over seeds") if bars else seed)
    legend_below(figure, handles)


def _told(axis: Axes, correlated: pd.DataFrame | None, x: str, y: str, linked: bool = False) -> None:
    """Write Spearman with its interval over networks above the panel."""
    if correlated is None:
        return
    which = {"x": x, "y": y, "given": "", "statistic": "Spearman", "among": "with links" if linked else "all"}
    found = correlated[np.logical_and.reduce([correlated[key] == value for key, value in which.items()])]
    for row in found.dropna(subset="value").itertuples():
        text = f"Spearman {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
        axis.text(1, 1.01, text, transform=axis.transAxes, ha="right", va="bottom", fontsize=7)
