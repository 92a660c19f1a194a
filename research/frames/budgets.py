"""Error against the cost of a network, as frames: own runs with their counted networks, and the published points; and
the configurations that no other one beats.

Both kinds of point have the columns ``network``, ``dataset``, ``family`` (of the substitute; "dense" for none),
``setting``, ``distilled``, ``params``, ``mult_adds`` (of one input) and ``top1_err`` (percent).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.config import Config
from research.errors import UsageError
from research.files import read_json
from research.frames import Runs
from research.frames.groups import Group, group_runs
from research.frames.published import load_published
from research.frames.sparse import step_times
from research.measures.cost import Cost
from research.runs.paths import RunPaths
from research.trained.network_cost import network_cost

FAMILY = re.compile(r"SepHashed|Hashed|TensorTrain|[A-Za-z]+")  # at the start of a published method's name
RENAMED = {"conv": "dense", "tensortrain": "tt", "g": "bottleneck"}  # else the families' own names, in lower case
NETWORKS = {"WRN-28-10": "wrn-28-10", "WRN-40-2": "wrn-40-2", "WRN-50-2": "wide_resnet50_2", "DARTS": "darts"}
DATASETS = {"CIFAR-10": "cifar10", "ImageNet": "imagenet"}
POINT = ["network", "dataset", "family", "setting", "distilled", "params", "mult_adds", "top1_err"]
COSTS = {
    "params": "learnable parameters",
    "inference": "mult-adds of one image",
    "training": "mult-adds of training",
    "cpu_seconds": "CPU seconds of training",
}
PASSES = 3  # a forward pass, and two as expensive ones backward: for the inputs of a layer and for its weights


def counted(runs: Runs) -> list[tuple[Group, Config, Cost]]:
    """Every group of ``runs`` whose network can be counted, with its configuration and cost."""
    found = []
    for group in group_runs(runs):
        try:
            config = group.config
            found.append((group, config, network_cost(config).cost))
        except UsageError:
            continue
    return found


def budget_points(runs: Runs) -> pd.DataFrame:
    """A row for every run that has been evaluated: POINT, ``run``, ``configuration``, ``seed`` and results.

    The results are the columns of :func:`research.frames.groups.run_results`. Runs whose network cannot be counted are
    left out.

    Raises:
        UsageError: nothing is left.
    """
    frames = []
    for group, config, cost in counted(runs):
        family, _, setting = (config.substitute or "dense").partition(":")
        known = {"configuration": group.label, "network": config.model, "dataset": config.dataset, "family": family}
        known |= {"setting": setting, "distilled": "distill" in config.hooks}
        known |= {"params": cost.params, "mult_adds": cost.mult_adds}
        frames.append(group.results.dropna(subset="top1_err").assign(**known))
    points = pd.concat(frames).rename_axis("run").reset_index() if frames else pd.DataFrame()
    if points.empty:
        raise UsageError("no run whose network can be counted has been evaluated yet")
    return points


def network_costs(runs: Runs) -> dict[str, Cost]:
    """The cost of every network among ``runs``, those of students and their own plain training once, largest first."""
    costs = {f"{config.model} {config.substitute}".strip(): cost for _, config, cost in counted(runs)}
    return dict(sorted(costs.items(), key=lambda item: -item[1].params))


def published_points(networks: Sequence[str] | None = None, table: str = "cheap-convs") -> pd.DataFrame:
    """The published errors with a known size: POINT (names of networks and data as runs have them) and ``source``.

    ``networks`` keeps only these. Sizes are exact where the source allows it, else as printed.
    """
    rows = load_published(table)
    rows = rows[rows["kind"] == "accuracy"]
    exact = pd.to_numeric(rows["params_exact"], errors="coerce")
    methods = rows["method"].str.extract(rf"^({FAMILY.pattern})_?([\d.]*)")
    families = methods[0].str.lower()
    points = pd.DataFrame(
        {
            "network": rows["network"].replace(NETWORKS),
            "dataset": rows["dataset"].replace(DATASETS),
            "family": families.replace(RENAMED),
            "setting": methods[1],
            "distilled": rows["distilled"] == "yes",
            "params": exact.fillna(rows["params"]),
            "mult_adds": rows["mult_adds"],
            "top1_err": pd.to_numeric(rows["top1_err"], errors="coerce"),
            "source": rows["source"],
        }
    )
    kept = points["params"].notna() & points["top1_err"].notna() & (rows["distilled"] != "unknown")
    kept &= points["network"].isin(networks) if networks is not None else True
    return points[kept].reset_index(drop=True)


def training_losses(runs: Runs) -> pd.DataFrame:
    """Every epoch of every group: configuration, distilled, trained (epochs), quantity, mean, std, seeds.

    Quantities: ``loss`` (training, as minimised), ``ce`` (its cross-entropy alone, where it can be told from what a
    teacher adds), ``top1_err`` (validation, percent).
    """
    runs = runs.understood()
    rows = runs.metrics
    keys = ["run", "epoch"]
    told = rows[rows["kind"].isin(["train_epoch", "val", "distill"])].drop_duplicates(
        [*keys, "kind", "metric"], keep="last"
    )
    wide = told.assign(key=told["kind"] + "." + told["metric"]).pivot(index=keys, columns="key", values="value")
    wide = wide.reindex(columns=wide.columns.union(["train_epoch.loss", "val.top1", "distill.at", "distill.kd"]))
    teaching = wide["distill.at"].fillna(0.0)
    only_at = wide["distill.kd"].fillna(0.0) == 0
    values = pd.DataFrame(
        {
            "loss": wide["train_epoch.loss"],
            "ce": (wide["train_epoch.loss"] - teaching).where(only_at),
            "top1_err": 100 - wide["val.top1"],
        }
    ).reset_index()
    groups = {name: group for group in group_runs(runs) for name in group.runs["name"]}
    values["configuration"] = values["run"].map(lambda name: groups[name].label)
    values["distilled"] = values["run"].map(lambda name: _distilled(groups[name]))
    long = values.assign(trained=values["epoch"] + 1).melt(
        ["configuration", "distilled", "trained"], ["loss", "ce", "top1_err"], "quantity"
    )
    grouped = long.dropna(subset="value").groupby(["configuration", "distilled", "quantity", "trained"], sort=False)
    return grouped["value"].agg(mean="mean", std="std", seeds="count").reset_index()


def _distilled(group: Group) -> bool:
    return "distill" in str(group.runs["hooks"].iloc[0]).split("+")


# -- what no other configuration beats ----------------------------------------------------------------------------


def priced(points: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """``points`` with what each run costs: the columns of COSTS.

    ``points`` are those of :func:`budget_points` or :func:`research.frames.sparse.sparse_points`. Products with the
    zeros of masks are not counted, though the masks here only simulate sparsity. ``training`` counts three passes an
    image, over all epochs, and the teacher's forward pass; not evaluations, and not the gradients of inactive weights
    that some methods look at. ``cpu_seconds`` is the shortest epoch of training, times epochs, threads and processes:
    other work on the machine disturbs it least.
    """
    by_name = runs.set_index("name").loc[points["run"]]
    steps = by_name["step"].where(by_name["step"] > 0).to_numpy(float)  # of runs that say how many
    mult_adds = points["mult_adds"]
    inference = points.get("sparse_mult_adds", mult_adds)
    own = PASSES * points.get("trained_mult_adds", mult_adds)
    teachers = [_teacher(run) for _, run in by_name.iterrows()]
    training = steps * by_name["batch_size"].to_numpy() * (own + np.array(teachers))
    shortest = by_name.index.map(step_times(runs)).to_numpy(float) / 1000  # seconds of a step
    threads = [_threads(Path(directory)) for directory in by_name["dir"]]
    return points.assign(inference=inference, training=training, cpu_seconds=steps * shortest * threads)


def _teacher(run: pd.Series) -> float:
    """Multiply-adds of a teacher's forward pass for an image of ``run``; 0 without one, NaN where it is not known."""
    name = run.get("distill.teacher")
    if not isinstance(name, str):
        return 0.0
    place = Path(name) if Path(name).exists() else Path(run["dir"]).parent / name
    config = read_json(RunPaths(place).config, None) if name else read_json(RunPaths(run["dir"]).config, None)
    try:
        mult_adds = network_cost(Config.stored(config)).cost.mult_adds if config else math.nan
    except UsageError:
        return math.nan
    return mult_adds / (run["epoch"] if run.get("distill.cache") is True else 1)  # asked once an image


def _threads(directory: Path) -> int:
    """Threads of all processes of a run, as it last went on."""
    sessions: Any = read_json(RunPaths(directory).environment, [])
    last = sessions[-1] if isinstance(sessions, list) and sessions else {}
    return (last.get("threads") or 1) * (last.get("processes") or 1)


def front(points: pd.DataFrame, cost: str, error: str = "top1_err") -> pd.DataFrame:
    """A row for every ``configuration``, cheapest first: ``n``, means of the ``cost`` and ``error``, and ``best``.

    ``best``: no other configuration has as small a mean error at as small a cost; those of unknown cost are left out.
    By means alone: whether two neighbours differ is for a test to tell.
    """
    grouped = points.dropna(subset=[cost, error]).groupby("configuration", sort=False)
    table = grouped.agg(n=(error, "count"), cost=(cost, "mean"), error=(error, "mean")).sort_values(["cost", "error"])
    cheap, good = table["cost"].to_numpy(), table["error"].to_numpy()
    no_worse = (cheap <= cheap[:, None]) & (good <= good[:, None])  # of the column than of the row
    beaten = no_worse & ((cheap < cheap[:, None]) | (good < good[:, None]))
    return table.assign(best=~beaten.any(axis=1)).rename(columns={"cost": cost, "error": error})
