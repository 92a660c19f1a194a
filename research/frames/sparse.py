"""Sparse training as frames: accuracy and density of each run, where its weights are, what its events did.

A density is a share of parameters that training can set: of a layer, its active weights; of a network, its learnable
parameters over those of the largest network of the same data among the runs. Tied layers count the values of their
banks, so that every method is a point on one axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from research.checkpoints import weights
from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.configurations import differing, number, told_apart, word
from research.frames.groups import Group, group_runs
from research.frames.published import load_published
from research.hooks import HOOKS
from research.layers.masked import MASK, masks_among
from research.plugins.scope import with_its_plugins
from research.runs.paths import RunPaths
from research.trained.network_cost import network_cost

NAMES = {
    "dense": "dense",
    "small": "small dense",
    "static_sparse": "static sparse",
    "deepr": "DeepR",
    "set": "SET",
    "l3": "L3",
    "rigl": "RigL",
    "itop": "ITOP",
    "snfs": "SNFS",
    "dsr": "DSR",
    "prune": "pruning",
    "tied": "tied",
    "snip": "SNIP",
}
"""Methods as papers write them, in the order in which tables and legends have them."""

PUBLISHED_SIZES = {  # parameters of the dense network, and those of them that the DSR paper makes sparse
    "mnist_mlp": (267_020, 266_200),
    "wrn-28-2": (1_467_610, 1_451_520),
    "resnet50": (25_557_032, 22_724_608),
}
ALL_OF_RESNET = 25_502_912  # weights that RigL and ITOP make sparse: of all convolutions and the classifier
SMALL_RESNET = {0.8: 8_167_095, 0.9: 5_771_217}  # of widths 0.54 and 0.46


@dataclass(frozen=True)
class Sizes:
    """What a run's network holds: ``params`` without zeros of masks, ``stored`` with them, layer by layer."""

    stored: int
    masked: dict[str, int]  # weights of every tensor that has a mask
    unmasked: int  # learnable parameters beside those
    initial: dict[str, float]  # densities of the masked tensors before the first step
    mult_adds: dict[str, float]  # of one input, with every weight, by layer

    def params(self, density: dict[str, float]) -> int:
        """Learnable parameters at these densities of the masked tensors."""
        return self.unmasked + round(sum(n * density[name] for name, n in self.masked.items()))

    def sparse_mult_adds(self, density: dict[str, float]) -> float:
        """Multiply-adds of one input that do not multiply by a zero of a mask; biases as their layer's weights."""
        return sum(cost * density.get(f"{layer}.weight", 1.0) for layer, cost in self.mult_adds.items())


def sizes(config: Config, directory: Path) -> Sizes:
    """The sizes of the run in ``directory``, from its best weights.

    Raises:
        UsageError: it has none yet, or its network cannot be counted.
    """
    tensors = weights.read(RunPaths(directory).best).tensors
    own = {name: value for name, value in tensors.items() if value.is_floating_point() and ".running_" not in name}
    masks = {name.removesuffix(MASK): mask for name, mask in masks_among(tensors).items()}
    masked = {name: own[name].numel() for name in masks}
    learnable = sum(value.numel() for value in own.values())
    untied = replace(config, hooks={name: given for name, given in config.hooks.items() if name != "tied"})
    cost = network_cost(untied).cost
    initial = {}
    for row in cost.rows:
        if inside := [name for name in masked if name.startswith(f"{row.layer}.")]:  # several in a substitute
            others = row.params - sum(masked[name] for name in inside)
            units = sum(masks[name].numel() for name in inside)  # what is counted of a mask
            initial |= dict.fromkeys(inside, (row.nonzeros - others) / units)
    mult_adds = {row.layer: row.mult_adds for row in cost.rows}
    return Sizes(max(learnable, cost.params), masked, learnable - sum(masked.values()), initial, mult_adds)


def known_sizes(config: Config, directory: Path) -> Sizes | None:
    """The :func:`sizes` of a run; ``None``, with a warning, where they cannot be known."""
    try:
        return sizes(config, directory)
    except UsageError as error:
        warnings.warn(f"{directory.name} is left out: {error}", stacklevel=3)
        return None


@with_its_plugins
def method_of(config: Config) -> str:
    """The hook that decides the masks, or ``"dense"``."""
    return next((name for name in config.hooks if HOOKS[name].exclusive == "masks"), "dense")


def sparse_groups(runs: Runs) -> list[tuple[Group, str, str]]:
    """Groups of runs with their method and a short name: the method, its sparsity, and what else tells it apart."""
    found = [(group, group.config) for group in group_runs(runs)]
    named = []
    for group, config in found:
        method = method_of(config)
        told = [other.changes for other, own in found if method_of(own) == method]
        varied = [name for name in differing(told) if name not in (method, f"{method}.sparsity")]
        mine = {name: value for name, value in group.changes.items() if name in varied}
        words = [word(name.removeprefix(f"{method}."), value) for name, value in mine.items()]
        words = [each.removeprefix("model_args.") for each in words]
        asked = [number(config.hooks[method]["sparsity"])] if method in config.hooks else []
        named.append((group, method, " ".join([NAMES.get(method, method), *asked, *words])))
    apart = told_apart([name for *_, name in named], [group.changes for group, *_ in named])
    return [(group, method, name) for (group, method, _), name in zip(named, apart, strict=True)]


def sparse_points(runs: Runs) -> pd.DataFrame:
    """A row for every run that has been evaluated.

    Columns: run, configuration, method, dataset, model, seed, sparsity (as asked for), distribution (of it over
    layers), params (learnable), density (percent, see above), mult_adds, sparse_mult_adds, trained_mult_adds (the same
    over training, the mean of the epochs), step_ms (the shortest epoch over its steps, wall clock), epochs, top1
    (percent, last epoch).

    Raises:
        UsageError: there is none.
    """
    layers, steps, rows, stored = layer_densities(runs), step_times(runs), [], {}
    for group, method, name in sparse_groups(runs):
        config = group.config
        for run in group.runs[group.runs["last_top1"].notna()].itertuples():
            if (held := known_sizes(config, Path(run.dir))) is None:
                continue
            mine = layers[layers["run"] == run.name]
            density = dict(mine[mine["trained"] == mine["trained"].max()][["layer", "density"]].itertuples(index=False))
            density = held.initial | density
            given = config.hooks.get(method, {})
            known = {"configuration": name, "method": method, "dataset": config.dataset, "model": config.model}
            known |= {"seed": run.seed, "params": held.params(density), "epochs": run.epoch}
            known |= {"sparsity": given.get("sparsity", np.nan), "distribution": given.get("distribution", "uniform")}
            known |= {"mult_adds": sum(held.mult_adds.values()), "sparse_mult_adds": held.sparse_mult_adds(density)}
            known |= {"trained_mult_adds": _over_training(held, mine)}
            rows.append({"run": run.name, **known, "step_ms": steps.get(run.name, np.nan), "top1": run.last_top1})
            stored[config.dataset] = max(held.stored, stored.get(config.dataset, 0))
    if not rows:
        raise UsageError("no run has been evaluated yet")
    points = pd.DataFrame(rows)
    whole = points["dataset"].map(stored)
    points["density"] = 100 * points["params"] / whole
    points.loc[(points["method"] == "dense") & (points["params"] < whole), "method"] = "small"
    small = points["configuration"].str.startswith("dense ") & (points["method"] == "small")
    points.loc[small, "configuration"] = "small " + points.loc[small, "configuration"]
    places = {method: place for place, method in enumerate(NAMES)}
    order = points["method"].map(places).fillna(len(places)).rename("order")  # those of plugins last
    return points.iloc[np.lexsort((points["seed"], -points["density"], order))].reset_index(drop=True)


def _over_training(held: Sizes, layers: pd.DataFrame) -> float:
    """Sparse multiply-adds of one input, the mean of all epochs: each has the mean of its start and end."""
    after = [dict(zip(epoch["layer"], epoch["density"], strict=True)) for _, epoch in layers.groupby("trained")]
    ends = [held.sparse_mult_adds(held.initial | density) for density in ({}, *after)]
    return float(np.mean([(start + end) / 2 for start, end in pairwise(ends)])) if after else ends[0]


def published_sparse(models: Sequence[str] | None = None, verified: bool = True) -> pd.DataFrame:
    """The published results: method, setting, model, dataset, sparsity, epochs, top1, std, params, density, source.

    ``models`` keeps only these; ``verified`` leaves out rows that nobody has compared with their source. Sizes follow
    from the sparsity and the layers that are sparse in the source.
    """
    rows = load_published("sparse")
    rows = rows[rows["model"].isin(PUBLISHED_SIZES if models is None else models)]
    rows = rows[rows["verification"] != "unverified"] if verified else rows
    return rows.assign(**_published_sizes(rows)).reset_index(drop=True)


def _published_sizes(rows: pd.DataFrame) -> dict[str, list[float]]:
    params = []
    for row in rows.itertuples():
        dense, sparse = PUBLISHED_SIZES[row.model]
        if row.model == "resnet50" and "Mostafa" not in row.source:
            sparse = ALL_OF_RESNET
        size = dense - row.sparsity * sparse
        if row.method == "small" and row.model == "resnet50" and "Mostafa" in row.source:
            size = SMALL_RESNET[row.sparsity]
        if row.method == "small" and row.model == "mnist_mlp":
            size = {0.98: 5_276, 0.99: 2_678}[row.sparsity]
        params.append(round(size))
    whole = [PUBLISHED_SIZES[model][0] for model in rows["model"]]
    return {"params": params, "density": [100 * p / w for p, w in zip(params, whole, strict=True)]}


# -- over training ------------------------------------------------------------------------------------------------


def layer_densities(runs: Runs) -> pd.DataFrame:
    """A row for every masked layer after every epoch: run, trained (epochs), step, layer, active, density, coverage,
    kept (active after the epoch before too), survived (of the initial ones)."""
    rows = runs.metrics
    rows = rows[rows["kind"] == "sparse"]
    keys, values = ["run", "epoch", "step", "layer"], ["active", "density", "coverage", "kept", "survived"]
    if rows.empty:
        return pd.DataFrame(columns=["run", "trained", "step", "layer", *values])
    wide = rows.pivot(index=keys, columns="metric", values="value")
    wide = wide.reindex(columns=values).reset_index().rename_axis(columns=None)
    return wide.assign(trained=wide.pop("epoch") + 1)


def densities_over_time(runs: Runs) -> pd.DataFrame:
    """:func:`layer_densities` with the configuration, and the densities before the first step as ``trained`` 0."""
    layers, parts = layer_densities(runs), []
    for group, method, name in sparse_groups(runs):
        config = group.config
        for run in group.runs.itertuples():
            mine = layers[layers["run"] == run.name]
            if mine.empty:
                continue
            if (held := known_sizes(config, Path(run.dir))) is None:
                continue
            start = held.initial
            first = pd.DataFrame({"run": run.name, "trained": 0, "layer": list(start), "density": list(start.values())})
            parts.append(pd.concat([first, mine]).assign(configuration=name, method=method))
    if not parts:
        raise UsageError("no run has finished an epoch with masks")
    return pd.concat(parts, ignore_index=True)


def network_history(runs: Runs) -> pd.DataFrame:
    """A row for every run and epoch, over all masked layers: configuration, method, run, trained, and shares of units.

    ``coverage`` (Rs): of all units, those active at least once; ``kept``: of those active an epoch before, those still
    active; ``survived``: of the initially active ones.
    """
    layers = densities_over_time(runs)
    layers["units"] = (layers["active"] / layers["density"]).groupby([layers["run"], layers["layer"]]).transform("max")
    layers["active"] = layers["density"] * layers["units"]
    by_layer = layers.groupby(["run", "layer"], sort=False)["active"]
    layers["before"], layers["first"] = by_layer.shift(), by_layer.transform("first")
    of = {"coverage": "units", "kept": "before", "survived": "first"}
    for share, whole in of.items():
        layers[share] *= layers[whole]
    later = layers[layers["trained"] > 0]
    keys = ["configuration", "method", "run", "trained"]
    sums = later.groupby(keys, sort=False)[[*of, *of.values()]].sum()
    return pd.DataFrame({share: sums[share] / sums[whole] for share, whole in of.items()}).reset_index()


def events(runs: Runs) -> pd.DataFrame:
    """Every rewiring event: configuration, method, run, step, epoch, k (asked for) and the numbers of its row: pruned,
    grown, density, threshold. A method that acts at every step, such as DeepR, has one row per epoch.

    Raises:
        UsageError: there was none.
    """
    rows = runs.metrics
    rows = rows[rows["kind"] == "sparse_event"]
    if rows.empty:
        raise UsageError("no run has had a rewiring event")
    known = []
    for group, method, name in sparse_groups(runs):
        k = group.config.hooks.get(method, {}).get("k", np.nan)
        known += [{"run": run, "configuration": name, "method": method, "k": k} for run in group.runs["name"]]
    wide = rows.pivot(index=["run", "step", "epoch"], columns="metric", values="value").reset_index()
    return wide.rename_axis(columns=None).merge(pd.DataFrame(known), on="run")


def step_times(runs: Runs) -> dict[str, float]:
    """Milliseconds of one training step of each run: its shortest epoch over the steps in it."""
    rows = runs.metrics
    rows = rows[(rows["kind"] == "train_epoch") & (rows["metric"] == "seconds")]
    per_step = 1000 * rows["value"] * (rows["epoch"] + 1) / rows["step"]
    return per_step.groupby(rows["run"]).min().to_dict()
