"""NN-Mass against accuracy, as frames: runs of networks that have a mass, and correlations with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.comparison import correlation
from research.frames.groups import label_changes, run_results
from research.measures.nn_mass import Cell, parts
from research.models import create_model
from research.runs.run import Run
from research.trained.network_cost import network_cost

SHAPE = ["population", "network", "width", "depth", "nn_mass", "nn_density", "params", "mult_adds"]
VALUES = ["top1", "ldi_exact", "ldi_reference"]
RESAMPLES = 2000
INTERVALS = (
    "95 % intervals: [had other networks of the kind been tried, by Fisher] (had these been trained with other seeds). "
    "What one tells beyond another is its partial correlation (given)."
)


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


def correlations(points: pd.DataFrame, pairs: Iterable[tuple[str, ...]]) -> pd.DataFrame:
    """How well a column of :func:`topology_points` tells another; a point is a network, its mean over seeds.

    A pair is (x, y), or (x, y, given) for partial correlations: what x tells beyond a third column. Columns: x, y,
    ``given``, ``among`` (``all`` networks, and those ``with links`` where there are others), statistic (each of
    STATISTICS), networks, seeds, value; ``low`` and ``high``: 95 % had other networks of the kind been tried (Fisher,
    see :func:`research.frames.comparison.correlation`), ``p`` of none; ``seed_low`` and ``seed_high``: had these been
    trained with other seeds (bootstrap over seeds, the same for all networks). NaN with fewer than four
    networks, or two seeds.
    """
    rows = []
    linked = points[points["nn_mass"] > 0]
    sets = {"all": points} | ({"with links": linked} if 0 < len(linked) < len(points) else {})
    for (x, y, *given), (among, chosen) in itertools.product(pairs, sets.items()):
        columns = _networks_by_seeds(chosen, [x, y, *given])
        for name, statistic in STATISTICS.items():
            if statistic is r2_log and (x != "nn_mass" or given):
                continue
            found = {"x": x, "y": y, "given": "".join(given), "among": among, "statistic": name}
            found |= {"networks": len(columns[0]), "seeds": columns[0].shape[1]}
            rows.append(found | _over_networks(statistic, columns) | _over_seeds(statistic, columns))
    return pd.DataFrame(rows)


def _over_networks(statistic: Callable, columns: Sequence[np.ndarray]) -> dict[str, float]:
    x, y, *given = (column.mean(1) for column in columns)
    ranks = "spearman" if statistic is spearman else "pearson"
    found = correlation(np.log1p(x) if statistic is r2_log else x, y, given[0] if given else None, ranks)
    value, ends = found.value, [found.low, found.high]
    if statistic in (r2, r2_log):
        value, ends = (
            value**2,
            [0.0 if ends[0] < 0 < ends[1] else min(end**2 for end in ends), max(end**2 for end in ends)],
        )
    return {"value": value, "low": ends[0], "high": ends[1], "p": found.p}


def _over_seeds(statistic: Callable, columns: Sequence[np.ndarray]) -> dict[str, float]:
    """The central 95 % of the statistic over resampled seeds."""
    seeds = columns[0].shape[1]
    if len(columns) > 2 or len(columns[0]) < 4 or seeds < 2:
        return {"seed_low": math.nan, "seed_high": math.nan}

    def resampled(picked: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*(column[:, picked].mean(axis) for column in columns), axis=0)

    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    low, high = np.nanquantile(resampled(draws), (0.025, 0.975))
    return {"seed_low": low, "seed_high": high}


def correlation_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`correlations` to be read: a pair a row, a statistic a column, "value [low, high] (other seeds)"."""

    def told(row: Any) -> str:
        seeds = "" if math.isnan(row.seed_low) else f" ({row.seed_low:.2f}, {row.seed_high:.2f})"
        return "" if math.isnan(row.value) else f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]{seeds}"

    texts = found.assign(told=[told(row) for row in found.itertuples()])
    texts["x"] += [f" given {name}" if name else "" for name in texts["given"]]
    pair = ["x", "y", "among", "networks", "seeds"]
    return texts.pivot_table("told", pair, "statistic", "first", sort=False).fillna("").reset_index()


def _networks_by_seeds(points: pd.DataFrame, names: Sequence[str]) -> list[np.ndarray]:
    """Each column as (networks, seeds), of the seeds that all networks have; of one mean each when they share none."""
    whole = points.dropna(subset=names)
    tables = [whole.pivot_table(values=name, index=["population", "network"], columns="seed") for name in names]
    shared = tables[1].columns[tables[1].notna().all()]
    if len(shared):
        return [table[shared].to_numpy() for table in tables]
    return [table.mean(axis=1).to_numpy()[:, None] for table in tables]
