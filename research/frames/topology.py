"""NN-Mass against accuracy, as frames: runs of networks that have a mass, correlations with intervals, equal masses."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, stats

from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.groups import label_changes, run_results
from research.frames.tables import plus_minus
from research.measures.nn_mass import Cell, parts
from research.models import create_model
from research.runs.run import Run
from research.trained.network_cost import network_cost

SHAPE = ["population", "network", "width", "depth", "nn_mass", "nn_density", "params", "mult_adds"]
VALUES = ["top1", "ldi_exact", "ldi_reference"]
RESAMPLES = 2000
INTERVALS = "95 % intervals: [had other networks of the kind been tried] (had these been trained with other seeds)."


def topology_points(runs: Runs) -> pd.DataFrame:
    """A row for every run whose network has an NN-Mass; networks of other parts are left out.

    ====================================  ============================================================================
    ``run seed status``                   the run
    ``population``                        networks of one kind that differ in nothing but shape and seed
    ``network``                           model and arguments
    ``width depth``                       channels of the first cell or block; layers of all of them
    ``nn_mass nn_density params``         of the network without substitutes
    ``mult_adds``                         of one input
    ``top1``                              percent on the validation set after the last epoch; NaN before it has ended
    ``ldi_exact ldi_reference``           mean singular value before training, NaN where it was not measured
    ====================================  ============================================================================

    Raises:
        UsageError: nothing is left.
    """
    rows = {}
    runs = runs.understood()
    for run, changes in zip(runs.itertuples(), runs.changes(), strict=True):
        config = Run.open(run.dir).config
        try:
            rows[run.name] = _shape(config) | {"changes": changes, "dataset": config.dataset}
        except UsageError:
            continue
        rows[run.name] |= {"seed": config.seed, "status": run.status}
    if not rows:
        raise UsageError(
            "no run has a network with NN-Mass: dense_mlp, regular_dense, dense_depth, ResNet, MobileNetV2"
        )
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.insert(0, "population", _population_names(table))
    top1 = 100 - run_results(runs)["top1_err"]
    table["top1"] = top1.reindex(table.index).where(table["status"] == "finished")
    metrics = runs.metrics
    measured = metrics[(metrics["kind"] == "ldi") & (metrics["metric"] == "mean")]
    if len(measured):
        measured = measured[measured["layer"].isna()]
        table = table.join(measured.pivot_table("value", "run", "mode", aggfunc="last").add_prefix("ldi_"))
    return table.reindex(columns=[*SHAPE, "seed", "status", *VALUES]).rename_axis("run").reset_index()


def _shape(config: Config) -> dict[str, Any]:
    args = " ".join(f"{name}={value}" for name, value in config.model_args.items() if name != "link_seed")
    told = _mass(config.model, tuple(sorted((name, _frozen(value)) for name, value in config.model_args.items())))
    cost = network_cost(config).cost
    return {"network": f"{config.model} {args}".strip(), **told, "params": cost.params, "mult_adds": cost.mult_adds}


@lru_cache(maxsize=512)
def _mass(model: str, args: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    built = create_model(model, **dict(args))
    found = list(parts(built).values())
    cells = isinstance(found[0], Cell)
    return {
        "kind": model if cells else type(built).__name__,
        "width": found[0].width if cells else found[0].widths[0],
        "depth": sum(part.depth if cells else len(part.widths) for part in found),
        "nn_mass": float(sum(part.mass for part in found)),
        "nn_density": float(np.mean([part.density for part in found])),
    }


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _population_names(table: pd.DataFrame) -> pd.Series:
    """The kind of network and data of each population, and what else distinguishes populations of one kind."""
    own = ("seed", "order_seed", "model", "dataset")
    names = pd.Series("", index=table.index)
    for (kind, data), part in table.groupby(["kind", "dataset"], sort=False):
        told = [
            {key: value for key, value in changes.items() if key not in own and not key.startswith("model_args.")}
            for changes in part["changes"]
        ]
        labels = label_changes(told)
        names[part.index] = [f"{kind} on {data}" + (f", {label}" if label != "plain" else "") for label in labels]
    return names


def populations(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each population in which NN-Mass varies."""
    return {name: part for name, part in points.groupby("population", sort=False) if part["nn_mass"].nunique() > 1}


def over_seeds(points: pd.DataFrame) -> pd.DataFrame:
    """A row for every network: SHAPE, ``seeds`` (trained), and mean and deviation of VALUES (``top1_sd`` ..)."""
    grouped = points.groupby(SHAPE, sort=False)
    values = grouped[VALUES]
    table = values.mean().join(values.std().add_suffix("_sd")).join(grouped["top1"].count().rename("seeds"))
    return table.reset_index().sort_values(["population", "depth", "nn_mass"], ignore_index=True)


# -- how well one tells the other ---------------------------------------------------------------------------------


def pearson(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    x, y = (v - v.mean(axis, keepdims=True) for v in (x, y))
    with np.errstate(invalid="ignore"):  # nan where nothing varies
        return (x * y).sum(axis) / np.sqrt((x**2).sum(axis) * (y**2).sum(axis))


def spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return pearson(stats.rankdata(x, axis=axis), stats.rankdata(y, axis=axis), axis)


def r2(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return pearson(x, y, axis) ** 2


def r2_log(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """R^2 of y on log(1 + x), for x an NN-Mass."""
    return r2(np.log1p(x), y, axis)


STATISTICS = {"Spearman": spearman, "Pearson": pearson, "R2": r2, "R2 of log(1+m)": r2_log}


def correlations(points: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Each of STATISTICS between two columns of :func:`topology_points`; a point is a network, its mean over seeds.

    Columns: x, y, ``among`` (``all`` networks, and those ``with links`` where there are others), statistic, networks,
    seeds, value; ``low`` and ``high``: 95 % had other networks of the kind been
    tried (networks resampled); ``seed_low`` and ``seed_high``: had these been trained with other seeds (seeds
    resampled, for all networks alike). Percentile bootstrap; NaN with fewer than three networks, or two seeds.
    """
    rows = []
    linked = points[points["nn_mass"] > 0]
    sets = {"all": points} | ({"with links": linked} if 0 < len(linked) < len(points) else {})
    for (x, y), (among, chosen) in itertools.product(pairs, sets.items()):
        X, Y = _networks_by_seeds(chosen, x, y)
        for name, statistic in STATISTICS.items():
            if statistic is r2_log and x != "nn_mass":
                continue
            found = {"x": x, "y": y, "among": among, "statistic": name, "networks": len(X), "seeds": X.shape[1]}
            value = float(statistic(X.mean(1), Y.mean(1))) if len(X) > 2 else math.nan
            rows.append(found | {"value": value} | _intervals(statistic, X, Y))
    return pd.DataFrame(rows)


def correlation_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`correlations` to be read: a pair a row, a statistic a column, "value [low, high] (other seeds)"."""

    def told(row: Any) -> str:
        seeds = "" if math.isnan(row.seed_low) else f" ({row.seed_low:.2f}, {row.seed_high:.2f})"
        return "" if math.isnan(row.value) else f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]{seeds}"

    texts = found.assign(told=[told(row) for row in found.itertuples()])
    pair = ["x", "y", "among", "networks", "seeds"]
    return texts.pivot_table("told", pair, "statistic", "first", sort=False).fillna("").reset_index()


def _networks_by_seeds(points: pd.DataFrame, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Both columns as (networks, seeds), of the seeds that all networks have; of one mean each when they share none."""
    both = points.dropna(subset=[x, y])
    tables = [both.pivot_table(values=name, index=["population", "network"], columns="seed") for name in (x, y)]
    whole = tables[1].columns[tables[1].notna().all()]
    if len(whole):
        return tuple(table[whole].to_numpy() for table in tables)
    return tuple(table.mean(axis=1).to_numpy()[:, None] for table in tables)


def _intervals(statistic: Callable, X: np.ndarray, Y: np.ndarray) -> dict[str, float]:
    found = dict.fromkeys(("low", "high", "seed_low", "seed_high"), math.nan)
    if len(X) > 2:
        found["low"], found["high"] = _interval((X.mean(1), Y.mean(1)), statistic, paired=True)
        if X.shape[1] > 1:

            def of_seeds(picked: np.ndarray, axis: int = -1) -> np.ndarray:
                return statistic(X[:, picked].mean(axis), Y[:, picked].mean(axis), axis=0)

            found["seed_low"], found["seed_high"] = _interval((np.arange(X.shape[1]),), of_seeds)
    return found


def _interval(data: Sequence[np.ndarray], statistic: Callable, **options: Any) -> tuple[float, float]:
    """The central 95 % of the statistic over resamples; resamples in which nothing varies are left out."""
    draw = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        resampled = stats.bootstrap(
            data, statistic, n_resamples=RESAMPLES, method="percentile", vectorized=True, random_state=draw, **options
        ).bootstrap_distribution
    return tuple(np.nanquantile(resampled, (0.025, 0.975)))


# -- networks of equal mass ---------------------------------------------------------------------------------------


def mass_levels(masses: Iterable[float], tolerance: float = 0.15) -> dict[float, str]:
    """Mass -> its level, such as "14.6-16": a level ends where a mass is more than ``tolerance`` above its least."""
    levels: list[list[float]] = []
    for mass in sorted(set(masses)):
        if not levels or mass > levels[-1][0] * (1 + tolerance):
            levels.append([])
        levels[-1].append(mass)
    names = {level[0]: "-".join(dict.fromkeys(f"{mass:.3g}" for mass in (level[0], level[-1]))) for level in levels}
    return {mass: names[level[0]] for level in levels for mass in level}


def iso_mass(points: pd.DataFrame, tolerance: float = 0.15) -> pd.DataFrame:
    """Does accuracy depend on anything else among networks of about equal mass? A level of mass a row, with networks.

    Columns: ``mass`` (see :func:`mass_levels`), ``params``, ``networks``, one ``depth D`` (or ``W x D``, when widths
    differ) each with mean and deviation of top-1 over seeds (percent), ``span`` of the networks' means (points),
    ``by chance`` the span that equal networks would show on average with these deviations and so many seeds, and ``p``
    of the largest difference (Tukey).
    """
    points = points.dropna(subset="top1")
    level = points["nn_mass"].map(mass_levels(points["nn_mass"], tolerance))
    by_width = points["width"].nunique() > 1
    rows = []
    for mass, part in points.sort_values("nn_mass").groupby(level, sort=False):
        members = {
            f"{width} x {depth}" if by_width else f"depth {depth}": same["top1"].to_numpy()
            for (width, depth), same in part.groupby(["width", "depth"])
        }
        sizes = (f"{part['params'].agg(end):,}" for end in ("min", "max"))
        row = {"mass": mass, "params": " to ".join(dict.fromkeys(sizes)), "networks": len(members)}
        row |= {name: plus_minus(top1) for name, top1 in members.items()}
        rows.append(row | _span(list(members.values())))
    table = pd.DataFrame(rows)
    last = ["span", "by chance", "p"]
    return table[[*(name for name in table if name not in last), *last]] if len(table) else table


def _span(members: Sequence[np.ndarray]) -> dict[str, float]:
    """The largest minus the smallest mean of these networks."""
    if len(members) < 2:
        return dict.fromkeys(("span", "by chance", "p"), math.nan)
    span = float(np.ptp([top1.mean() for top1 in members]))
    if min(map(len, members)) < 2:
        return {"span": span, "by chance": math.nan, "p": math.nan}
    error = np.sqrt(np.mean([top1.var(ddof=1) / len(top1) for top1 in members]))
    return {"span": span, "by chance": error * _normal_span(len(members)), "p": stats.tukey_hsd(*members).pvalue.min()}


def _normal_span(count: int) -> float:
    """Expected largest minus smallest of ``count`` standard normal numbers."""
    x = np.linspace(-8, 8, 4001)
    return float(integrate.trapezoid(1 - stats.norm.cdf(x) ** count - stats.norm.sf(x) ** count, x))
