"""Error against what a network costs -> frames: own runs with their counted networks, and the published points.

Both kinds of point have the columns ``network``, ``dataset``, ``family`` (of the substitute; "dense" for none),
``setting``, ``distilled``, ``params``, ``mult_adds`` (of one input) and ``top1_err`` (percent).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import torch

from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.groups import Group, group_runs
from research.measures.cost import Cost, count
from research.provenance import config_of
from research.published import load_published

FAMILY = re.compile(r"SepHashed|Hashed|TensorTrain|[A-Za-z]+")  # at the start of a published method's name
RENAMED = {"conv": "dense", "tensortrain": "tt", "g": "bottleneck"}  # else the families' own names, in lower case
NETWORKS = {"WRN-28-10": "wrn-28-10", "WRN-40-2": "wrn-40-2", "WRN-50-2": "wide_resnet50_2", "DARTS": "darts"}
DATASETS = {"CIFAR-10": "cifar10", "ImageNet": "imagenet"}
POINT = ["network", "dataset", "family", "setting", "distilled", "params", "mult_adds", "top1_err"]


class Network(NamedTuple):
    """What a configuration's network costs, and the distinct weight decays of its parameters, largest first."""

    cost: Cost
    decays: tuple[float, ...]


def network(config: Config) -> Network:
    """The network that runs of ``config`` train, counted for one of its inputs; built on the CPU, without data.

    Raises:
        UsageError: a data set whose classes are counted on disk, or layers that have no counting rule.
    """
    # a teacher is no part of the network, and initial values change no count
    hooks = {name: given for name, given in config.hooks.items() if name != "distill"}
    alike = replace(config, seed=0, name="", hooks=hooks)
    return _network(json.dumps(alike.to_dict()))


@lru_cache(maxsize=64)
def _network(stored: str) -> Network:
    from research.networks import network_of
    from research.prepare import weight_decays

    config = Config.load(json.loads(stored))
    classes, shape = classes_and_shape(config)
    model = network_of(config, classes, shape, torch.device("cpu"))
    decays = sorted(set(weight_decays(model, config).values()), reverse=True)
    return Network(count(model, shape), tuple(decays))


def classes_and_shape(config: Config) -> tuple[int, tuple[int, ...]]:
    """Classes and input shape of the data, from what is known of it before it is read.

    Raises:
        UsageError: a data set whose classes are counted on disk.
    """
    from research.data.augment import Augment
    from research.data.datasets import arguments, describe

    dataset = describe(config.dataset)
    classes = dataset.classes or {"imagenet": 1000}.get(dataset.name)
    if not classes:
        raise UsageError(f"{dataset.name}: its classes are not known without its files")
    if dataset.kind == "vectors":
        return classes, dataset.shape
    side = Augment(**arguments(dataset.name, config.data_args)[0]).size(dataset)
    return classes, (dataset.shape[0], side, side)


def counted(runs: Runs) -> list[tuple[Group, Config, Cost]]:
    """Every group of ``runs`` whose network can be counted, with its configuration and cost."""
    found = []
    for group in group_runs(runs):
        try:
            config = config_of(group)
            found.append((group, config, network(config).cost))
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

    ``networks`` keeps those only. Sizes are exact where the source allows to say so, else as printed.
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
    rows = runs.metrics
    keys = ["run", "epoch"]
    told = rows[rows["split"].isin(["epoch", "val", "distill"])].drop_duplicates(
        [*keys, "split", "metric"], keep="last"
    )
    wide = told.assign(key=told["split"] + "." + told["metric"]).pivot(index=keys, columns="key", values="value")
    wide = wide.reindex(columns=wide.columns.union(["epoch.loss", "val.top1", "distill.at", "distill.kd"]))
    teaching = wide["distill.at"].fillna(0.0)
    only_at = wide["distill.kd"].fillna(0.0) == 0
    values = pd.DataFrame(
        {
            "loss": wide["epoch.loss"],
            "ce": (wide["epoch.loss"] - teaching).where(only_at),
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
