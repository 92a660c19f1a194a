"""What PowerGrad does: its gradient, the growth of the logits, and gains with their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from research.errors import UsageError
from research.figures.legends import legend_above, legend_below, scale_beside
from research.figures.style import BLUE, COLUMN, FEW, PAGE, TALLEST, colours, number_log_axis, style
from research.frames import Runs
from research.frames.power_grad import with_alpha
from research.hooks.power_grad import legacy_gradient

ROW = 0.2  # inches of a row of intervals
LOOKS = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"))  # dash and marker of a network, where colours mean alpha


def gradient_profile(alphas: Sequence[float], ks: Sequence[float], legacy_alpha: float, classes: int = 1000) -> Figure:
    """Size of one sample's gradient at its label's logit, 1 - T_alpha(p)_y, against its probability p_y.

    The other classes share 1 - p_y evenly. Left: the transform for ``alphas``. Right: what the published code applies
    with ``legacy_alpha`` where its ratio k = S / N^2 of loss scale and squared batch is not 1; no line where it is nan.
    """
    logits = profile_logits(
        np.concatenate([np.geomspace(1e-4, 0.5, 200), 1 - np.geomspace(0.5, 1e-6, 300)[1:]]), classes
    )
    p = torch.softmax(logits, 1)[:, 0].numpy()
    labels = torch.zeros(len(logits), dtype=torch.long)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.0), layout="constrained")
        for alpha, colour in zip(alphas, colours(len(alphas)), strict=True):
            gradient = 1 - torch.softmax(alpha * logits, 1)[:, 0].numpy()
            left.plot(p, gradient, color=colour, label=f"$\\alpha$ = {alpha:g}" + (" (plain)" if alpha == 1 else ""))
        for k, colour in zip(ks, colours(len(ks)), strict=True):
            gradient = legacy_gradient(logits, labels, legacy_alpha, loss_scale=k * len(logits) ** 2)
            name = f"k = {k:.2g}" + (" (as on the left)" if k == 1 else "")
            right.plot(p, -len(logits) * gradient[:, 0].numpy(), color=colour, label=name)
        left.set(ylabel="gradient at the label's logit", ylim=(0, 1.05))
        right.set(ylabel="gradient, published code", yscale="log")
        for axis in (left, right):
            axis.set(xlabel="probability of the label", xscale="logit", xlim=(1e-4, 1 - 1e-6))
            axis.xaxis.set_major_locator(FixedLocator([1e-3, 0.1, 0.9, 0.999, 0.99999]))
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        for axis, values, name in ((left, alphas, "$\\alpha$"), (right, ks, f"k, $\\alpha$ = {legacy_alpha:g}")):
            if len(values) <= FEW:
                legend_above(axis, columns=2, title=name)
            else:
                scale_beside(figure, [axis], values, name)
        plt.close(figure)
    return figure


def profile_logits(p: np.ndarray, classes: int) -> torch.Tensor:
    """Logits (P, classes) float64 that give class 0 the probabilities ``p`` (P,) and the others equal shares."""
    rest = np.log1p(-p) - np.log(classes - 1)
    return torch.from_numpy(np.column_stack([np.log(p), np.repeat(rest[:, None], classes - 1, axis=1)]))


def logit_growth(runs: Runs) -> Figure:
    """Norm of the validation logits over training, and how much larger it ends than with alpha = 1.

    Rows ``val_logits`` of ``logit_stats``. Left: mean and standard deviation over seeds, a colour for each alpha, a
    dash for each network. Right: ratio of the last norms of equal seeds, against 1 / alpha, which is the dashed line.

    Raises:
        UsageError: no run has logit statistics.
    """
    norms = logit_norms(runs)
    if norms.empty:
        raise UsageError("no run has logit statistics, so there is no growth to draw; train with logit_stats=true")
    alphas, networks = sorted(norms["alpha"].unique(), reverse=True), list(norms["network"].unique())
    palette = dict(zip(alphas, colours(len(alphas)), strict=True))
    many = len(networks) > len(LOOKS)
    looks = dict.fromkeys(networks, LOOKS[0]) if many else dict(zip(networks, LOOKS, strict=False))
    with style():
        handles = [Line2D([], [], color=palette[a], label=f"$\\alpha$ = {a:g}") for a in alphas] * (len(alphas) <= FEW)
        told = {f"{len(networks)} networks, a line each": LOOKS[0]} if many else looks
        handles += [Line2D([], [], color="0.3", linestyle=d, marker=m, label=n) for n, (d, m) in told.items()]
        handles.append(Line2D([], [], color="0.5", linestyle="--", linewidth=0.8, label="ratio = 1 / $\\alpha$"))
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.1), layout="constrained")
        for (network, alpha), rows in norms.groupby(["network", "alpha"]):
            _band(left, rows.groupby("trained")["norm"].agg(["mean", "std"]), palette[alpha], looks[network][0])
        left.set(xlabel="epoch", ylabel="norm of the logits (validation)", yscale="log")
        number_log_axis(left.yaxis)
        left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _ratios(right, norm_ratios(norms), palette, looks)
        if len(alphas) > FEW:
            scale_beside(figure, [left, right], alphas[::-1], "$\\alpha$")
        legend_below(figure, handles, "mean ± s.d. over seeds")
        plt.close(figure)
    return figure


def logit_norms(runs: Runs) -> pd.DataFrame:
    """Norm of the validation logits after every epoch: network, baseline, alpha, seed, run, trained (epochs), norm."""
    rows = runs.metrics
    rows = rows[(rows["kind"] == "val_logits") & (rows["metric"] == "norm")]
    rows = rows.drop_duplicates(["run", "epoch"], keep="last").assign(trained=lambda frame: frame["epoch"] + 1)
    of_run = with_alpha(runs)[["name", "network", "baseline", "alpha", "seed"]].rename(columns={"name": "run"})
    columns = ["network", "baseline", "alpha", "seed", "run", "trained", "norm"]
    return of_run.merge(rows[["run", "trained", "value"]].rename(columns={"value": "norm"}), on="run")[columns]


def norm_ratios(norms: pd.DataFrame) -> pd.DataFrame:
    """Last norm over that of the same seed with alpha = 1 throughout: network, alpha, seed, ratio."""
    last = norms.sort_values("trained").groupby(["network", "baseline", "alpha", "seed"])["norm"].last().reset_index()
    plain = last[(last["alpha"] == 1) & (last["network"] == last["baseline"])]
    plain = plain.set_index(["network", "seed"])["norm"].rename("plain").rename_axis(["baseline", "seed"])
    others = last[(last["alpha"] != 1) | (last["network"] != last["baseline"])]
    ratios = others.join(plain, on=["baseline", "seed"], how="inner")
    return ratios.assign(ratio=ratios["norm"] / ratios["plain"])[["network", "alpha", "seed", "ratio"]]


def intervals(frame: pd.DataFrame, xlabel: str) -> Figure:
    """A line of ``frame`` a row, downwards: ``difference`` with a bar from ``low`` to ``high``; zero is marked.

    ``label`` names the row. The dot is filled where ``p_holm``, adjusted over all rows, is at most 0.05. Of more rows
    than a page has room for, those of the least ``p_holm`` are drawn, and the axis says so.
    """
    count, most = len(frame), int((TALLEST - 1) / ROW)
    if count > most:
        frame = frame.loc[frame["p_holm"].nsmallest(most, keep="first").index.sort_values()]
        xlabel = f"{xlabel}; {most} of {count} rows: the least p"
    with style():
        width = COLUMN if frame["label"].str.len().max() < 26 else PAGE
        figure, axis = plt.subplots(figsize=(width, ROW * len(frame) + 0.5), layout="constrained")
        places = np.arange(len(frame))
        axis.axvline(0, color="0.5", linewidth=0.6, linestyle="--")
        axis.hlines(places, frame["low"], frame["high"], color=BLUE, linewidth=1)
        clear = (frame["p_holm"] <= 0.05).to_numpy()
        for chosen, face in ((clear, BLUE), (~clear, "white")):
            axis.plot(frame["difference"][chosen], places[chosen], "o", color=BLUE, markerfacecolor=face, zorder=3)
        axis.set(xlabel=xlabel, yticks=places, ylim=(len(frame) - 0.5, -0.5))
        axis.set_yticklabels(frame["label"])
        axis.grid(False, axis="y")
        dots = {"p (Holm) ≤ 0.05": BLUE, "larger": "white"}
        handles = [Line2D([], [], color=BLUE, marker="o", mfc=face, linewidth=1, label=n) for n, face in dots.items()]
        legend_below(figure, handles, "difference, 95 % interval")
        plt.close(figure)
    return figure


def _band(axis: Axes, rows: pd.DataFrame, colour, dash: str) -> None:
    axis.plot(rows.index, rows["mean"], color=colour, linestyle=dash, marker="o" if len(rows) == 1 else None)
    spread = rows["std"].fillna(0)
    axis.fill_between(rows.index, rows["mean"] - spread, rows["mean"] + spread, color=colour, alpha=0.2, linewidth=0)


def _ratios(axis: Axes, ratios: pd.DataFrame, palette: dict, looks: dict) -> None:
    for (network, alpha), rows in ratios.groupby(["network", "alpha"]):
        spread = rows["ratio"].std() if len(rows) > 1 else 0
        look = {"color": palette[alpha], "marker": looks[network][1], "capsize": 2, "elinewidth": 0.8}
        axis.errorbar(1 / alpha, rows["ratio"].mean(), spread, **look)
    ends = [min([1, *(1 / ratios["alpha"])]), max([1, *(1 / ratios["alpha"])])]
    axis.plot(ends, ends, color="0.5", linestyle="--", linewidth=0.8)
    axis.set(xlabel="1 / $\\alpha$", ylabel="norm / norm with $\\alpha$ = 1")
    if ratios.empty:
        axis.text(0.5, 0.5, "no seed trained with $\\alpha$ = 1 too", transform=axis.transAxes, ha="center")
