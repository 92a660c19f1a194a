"""Networks of equal NN-Mass: found without training, by closed forms, and compared once they were trained.

Bhardwaj, Li and Marculescu (2021, arXiv 1910.00780).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from research.frames.comparison import compare, games_howell
from research.frames.statistics.t_tests import holm
from research.frames.tables import levels, plus_minus
from research.measures.cost import count
from research.measures.ldi import Mode, singular_values
from research.measures.nn_mass import Cell, tc_for_mass
from research.models import create_model

CIFAR_FAMILIES = {  # mass -> layers of a cell -> tc of the three cells of 32, 64 and 128 channels
    300: {8: (21, 42, 66), 10: (22, 44, 69), 13: (23, 46, 72), 16: (23, 46, 72)},
    526: {8: (38, 76, 119), 10: (39, 78, 122), 13: (40, 80, 125), 20: (41, 82, 128)},
}


def iso_mass_curves(masses: Sequence[float], width: int, depths: Iterable[int]) -> pd.DataFrame:
    """The cap that gives an MLP of each depth about each mass, where there is one: mass, depth, tc, nn_mass."""
    found = [
        {
            "mass": mass,
            "depth": depth,
            "tc": (tc := tc_for_mass(mass, width, depth)),
            "nn_mass": Cell(width, depth, tc).mass,
        }
        for mass in masses
        for depth in depths
        if mass <= width * depth
    ]
    return pd.DataFrame(found)


def cifar_families(families: Mapping[int, Mapping[int, Sequence[int]]] = CIFAR_FAMILIES) -> pd.DataFrame:
    """CIFAR networks of equal masses, 10 classes: network, mass, cell_depth, tc, nn_mass, params."""
    rows = []
    for mass, members in families.items():
        for depth, tc in members.items():
            for name in ("regular_dense", "dense_depth"):
                model = create_model(name, cell_depth=depth, tc=list(tc))
                params = sum(p.numel() for p in model.parameters())
                rows.append(
                    {
                        "network": name,
                        "mass": mass,
                        "cell_depth": depth,
                        "tc": tc,
                        "nn_mass": model.nn_mass,
                        "params": params,
                    }
                )
    return pd.DataFrame(rows)


def mobilenets(width_mults: Sequence[float], image_size: int = 224) -> pd.DataFrame:
    """MobileNetV2 at these widths and, deeper, at 1.1: layout, width_mult, nn_mass, params, mult_adds of one image."""
    rows = []
    for layout, width_mult in [*(("published", width) for width in width_mults), ("compressed", 1.1)]:
        model = create_model("mobilenet_v2", width_mult=width_mult, layout=layout)
        cost = count(model, (3, image_size, image_size))
        rows.append(
            {
                "layout": layout,
                "width_mult": width_mult,
                "nn_mass": model.nn_mass,
                "params": cost.params,
                "mult_adds": cost.mult_adds,
            }
        )
    return pd.DataFrame(rows)


def initial_values(
    x: Tensor,
    masses: Sequence[float] = (0, 20, 50),
    depths: Sequence[int] = (8, 24),
    width: int = 8,
    inits: int = 8,
    mode: Mode = "exact",
) -> dict[int, dict[float, np.ndarray]]:
    """Singular values of all layers' Jacobians of new MLPs at inputs ``x`` (N, ...): depth -> NN-Mass -> values.

    The caps are those that come closest to ``masses``. Values of all layers, inputs and ``inits`` networks together,
    float64; initialisation i has seed i.
    """
    found: dict[int, dict[float, np.ndarray]] = {}
    for depth in depths:
        for mass in masses:
            tc, models = tc_for_mass(mass, width, depth), []
            for seed in range(inits):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    models.append(create_model("dense_mlp", 10, tuple(x.shape[1:]), width=width, depth=depth, tc=tc))
            with torch.no_grad():
                values = [each.flatten() for each in singular_values(models, x, mode)]
            found.setdefault(depth, {})[models[0].nn_mass] = torch.cat(values).numpy()
    return found


# -- networks that were trained ---------------------------------------------------------------------------------------


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
