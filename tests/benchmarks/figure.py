"""The results of the suite drawn: every ratio beside its aim, and costs against sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research.figures.style import PAGE, PALETTE, number_log_axis, style

MET, MISSED = PALETTE[0], PALETTE[1]
ROW = 0.145  # inches


def against_aims(results: dict[str, Any]) -> Figure:
    """A dot a row: 1 is the aim, above it is better. Filled: met; hollow: missed; lines: p10 to p90; grey: A/A."""
    rows = results["rows"][::-1]
    with style():
        figure = Figure(figsize=(PAGE, 0.7 + ROW * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            if row["missing"]:
                axes.text(1.03, y, row["missing"][:60], fontsize=5.5, va="center", color="0.4")
                continue
            colour = MET if row["met"] else MISSED
            middle, ends = of_aim(row, [row["ratio"]])[0], of_aim(row, row["spread"])
            axes.barh(
                y, np.diff(noise := sorted(middle * np.array(row["noise"]))), left=noise[0], height=0.7, color="0.85"
            )
            axes.plot(ends, [y, y], color=colour, linewidth=1)
            axes.plot(
                middle, y, "o" if row["met"] else "s", color=colour, mfc=colour if row["met"] else "white", ms=3.5
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yticks(
            range(len(rows)), [f"{row['subject']}  |  {row['rival']}  {row['aim']}" for row in rows], fontsize=5.5
        )
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel("times the aim (right of the line: met)")
        axes.grid(axis="y", visible=False)
        number_log_axis(axes.xaxis)
        handles = [
            Line2D([], [], color=MET, marker="o", ms=3.5, linewidth=1, label="met, p10 to p90"),
            Line2D([], [], color=MISSED, marker="s", mfc="white", ms=3.5, linewidth=1, label="missed, p10 to p90"),
            Line2D([], [], color="0.85", linewidth=5, label="the same against itself"),
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


def of_aim(row: dict[str, Any], ratios: list[float]) -> np.ndarray:
    """Ratios in units of the aim, more being better."""
    sign, value = row["aim"].split()
    return np.array(ratios) / float(value) if sign == ">=" else float(value) / np.array(ratios)


def growth_against_size(rows: list[dict[str, Any]]) -> Figure:
    """Cost against size, one panel a growth, with the fitted power."""
    columns = 4
    lines = -(-len(rows) // columns)
    with style():
        figure = Figure(figsize=(PAGE, 1.7 * lines), layout="constrained")
        for axes, row in zip(figure.subplots(lines, columns, squeeze=False).ravel(), rows, strict=False):
            sizes, seconds = np.array(row["sizes"]), np.array(row["seconds"])
            factor = np.exp(np.mean(np.log(seconds) - row["exponent"] * np.log(sizes)))
            axes.loglog(sizes, factor * sizes ** row["exponent"], color=PALETTE[0])
            axes.loglog(sizes, seconds, "o", color=PALETTE[1])
            axes.set_xlabel(row["size"])
            axes.set_ylabel("seconds")
            low, high = row["interval"]
            told = f"{row['subject']}\nexponent {row['exponent']:.2f} ({low:.2f} to {high:.2f})"
            axes.set_title(told, fontsize=6)
            for axis in (axes.xaxis, axes.yaxis):
                low, high = axis.get_view_interval()
                if high < 30 * low:  # numbers written out have room in a range that is not wider
                    number_log_axis(axis)
                axis.set_tick_params(labelsize=5)
        for axes in figure.axes[len(rows) :]:
            axes.set_visible(False)
    return figure
