"""Error against the cost of a network, as frames: own runs with their counted networks, and the published points.

Both kinds of point have the columns ``network``, ``dataset``, ``family`` (of the substitute; "dense" for none),
``setting``, ``distilled``, ``params``, ``mult_adds`` (of one input) and ``top1_err`` (percent).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.groups import Group, group_runs
from research.frames.published import load_published
from research.measures.cost import Cost
from research.trained.network_cost import network_cost

FAMILY = re.compile(r"SepHashed|Hashed|TensorTrain|[A-Za-z]+")  # at the start of a published method's name
RENAMED = {"conv": "dense", "tensortrain": "tt", "g": "bottleneck"}  # else the families' own names, in lower case
NETWORKS = {"WRN-28-10": "wrn-28-10", "WRN-40-2": "wrn-40-2", "WRN-50-2": "wide_resnet50_2", "DARTS": "darts"}
DATASETS = {"CIFAR-10": "cifar10", "ImageNet": "imagenet"}
POINT = ["network", "dataset", "family", "setting", "distilled", "params", "mult_adds", "top1_err"]


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
