"""Trained networks of about equal NN-Mass: does accuracy depend on anything else among them?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from research.frames.comparison import compare, games_howell
from research.frames.t_tests import holm
from research.frames.tables import levels, plus_minus


def iso_mass(points: pd.DataFrame, tolerance: float = 0.15) -> pd.DataFrame:
    """A level of mass a row, with its networks, of :func:`research.frames.topology.topology_points`.

    Columns: ``mass`` (masses up to ``tolerance`` above the least of a level count as equal), ``params``, ``networks``,
    one ``depth D`` (or ``W x D``, when widths differ) each with mean and deviation of top-1 over seeds (percent).
    ``s.d. of means``: how far the true means lie apart, in points (variance of the means less what their seeds give, by
    the method of moments). ``p of any`` difference, adjusted over the levels (Alexander and Govern 1974, for deviations
    that differ; Holm), and ``p of a pair``, the least of all pairs in the level (Games and Howell 1976).
    """
    rows = []
    for mass, part in _levels(points, tolerance):
        members = _members(part)
        sizes = (f"{part['params'].agg(end):,}" for end in ("min", "max"))
        row = {"mass": mass, "params": " to ".join(dict.fromkeys(sizes)), "networks": len(members)}
        row |= {name: plus_minus(top1) for name, top1 in members.items()}
        pairs = games_howell(members)
        row |= {"s.d. of means": _spread_of_means(members.values()), "p of any": _any_difference(members.values())}
        rows.append(row | {"p of a pair": pairs["p"].min() if len(pairs) else math.nan})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    last = ["s.d. of means", "p of any", "p of a pair"]
    table["p of any"] = holm(table["p of any"])
    return table[[*(name for name in table if name not in last), *last]]


def deepest_against_shallowest(
    points: pd.DataFrame, tolerance: float = 0.15, *, margin: float | None = None
) -> pd.DataFrame:
    """Of each level of mass, the deepest network against the shallowest: ``mass`` and the columns of ``compare``.

    This contrast is chosen without a look at the results; the largest minus the smallest mean, which is not, is large
    by chance.
    """
    arms, contrasts, masses = {}, [], []
    for mass, part in _levels(points, tolerance):
        members = _members(part)
        if len(members) > 1:
            shallow, *_, deep = (f"{name}, mass {mass}" for name in members)
            arms |= {f"{name}, mass {mass}": top1 for name, top1 in members.items()}
            contrasts.append((deep, shallow))
            masses.append(mass)
    return compare(arms, contrasts, margin=margin).assign(mass=masses)


def _levels(points: pd.DataFrame, tolerance: float) -> list[tuple[str, pd.DataFrame]]:
    points = points.dropna(subset="top1").sort_values("nn_mass")
    return list(points.groupby(points["nn_mass"].map(levels(points["nn_mass"], tolerance)), sort=False))


def _members(part: pd.DataFrame) -> dict[str, pd.Series]:
    """Top-1 by seed of each network of a level, shallowest first."""
    by_width = part["width"].nunique() > 1
    return {
        f"{width} x {depth}" if by_width else f"depth {depth}": same.groupby("seed")["top1"].mean()
        for (depth, width), same in part.groupby(["depth", "width"])
    }


def _spread_of_means(members: Sequence[pd.Series]) -> float:
    members = list(members)
    if len(members) < 2 or min(map(len, members)) < 2:
        return math.nan
    between = np.var([top1.mean() for top1 in members], ddof=1)
    return math.sqrt(max(0.0, between - np.mean([top1.var() / len(top1) for top1 in members])))


def _any_difference(members: Sequence[pd.Series]) -> float:
    varied = [top1 for top1 in members if len(top1) > 1 and np.ptp(top1) > 0]
    return float(stats.alexandergovern(*varied).pvalue) if len(varied) > 1 else math.nan
