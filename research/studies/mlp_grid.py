"""Populations of NN-Mass MLPs: a grid in the words of the published programs, a table of it, and their log files.

Bhardwaj, Li and Marculescu, CVPR 2021 (arXiv 1910.00780): train_mlp.py and ldi.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from research.config import Config
from research.data.datasets import describe
from research.errors import UsageError, closest
from research.frames import Runs
from research.measures.nn_mass import mlp_topology
from research.plugins.scope import plugged
from research.runs.run import Run
from research.studies.population import arguments
from research.studies.study import Study, expand

ADAM = {"optimizer": "adamw", "weight_decay": 0, "schedule": "constant"}  # AdamW without decay
BATCH = {"mnist": 64, "linear": 100, "circle": 100}  # of the published program: MNIST's is fixed there


def mlp_configs(
    name: str = "topology",
    *,
    dataset: Any = "MNIST",
    depth: Any = 4,
    width: Any = 8,
    tc: Any = 20,
    num_seg: Any = 2,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    batch_size: int | None = None,
    epochs: int = 1,
    lr: float = 0.001,
    act: str = "elu",
    **settings: Any,
) -> list[Config]:
    """Every combination of the values given, each a run ``<name>-<data set>-<what varies>-seed-<seed>``.

    ``dataset``, ``depth``, ``width``, ``tc`` and ``num_seg`` are one value or a list. Data sets are called as in the
    published program: MNIST, and whatever contains ``lin`` or ``cir``. ``num_seg`` is for these two; ``batch_size``
    None is the program's own, 64 for MNIST and 100 else. ``settings`` are other parameters of Config.

    Raises:
        UsageError: every problem of any of them.
    """
    configs, problems = [], []
    for called in listed(dataset):
        try:
            data = dataset_called(called)
            shapes = {"width": width, "depth": depth, "tc": tc}
            grid = {f"model_args.{key}": listed(values) for key, values in shapes.items()}
            base = {"dataset": data, "model": "dense_mlp", "model_args.act": act, **ADAM, "epochs": epochs, "lr": lr}
            base["batch_size"] = BATCH[data] if batch_size is None else batch_size
            if data == "mnist":
                base["data_args.normalize"] = False  # pixels in 0..1
            else:
                grid["data_args.num_seg"] = listed(num_seg)
            study = Study(f"{name}-{data}", base=base | settings, grid=grid, seeds=tuple(seeds))
            configs += [point.config for point in expand(study)]
        except UsageError as error:
            problems += str(error).splitlines()
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return configs


def dataset_called(name: str) -> str:
    """The data set that the published program means by ``name``."""
    known = {"MNIST": "mnist", "lin": "linear", "cir": "circle"}
    found = [data for word, data in known.items() if word in str(name) or data == name]
    if len(found) != 1:
        raise UsageError(f"dataset={name!r}: expected MNIST, linear or circle{closest(name, known.values())}")
    return found[0]


def listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple, range)) else [value]


def networks(runs: Runs, ldi_mode: str = "exact") -> pd.DataFrame:
    """One row for every dense MLP among ``runs``, with what its shape says and what was measured of it.

    ========================================  ========================================================================
    ``run dataset num_seg width depth tc``    what it is; ``num_seg`` of the generated data sets
    ``seed``
    ``nn_mass nn_density params flops macs``  closed forms
    ``epoch``                                 epochs done
    ``top1 loss``                             of the validation set, after the newest epoch (percent, nats)
    ``train_top1 train_loss``                 of the newest epoch, while training
    ``ldi_mean ldi_std``                      of ``ldi_mode``, with the initial weights
    ========================================  ========================================================================

    What was not measured is NaN.
    """
    runs = runs[runs["model"] == "dense_mlp"]
    rows = {}
    for run in (Run.open(directory) for directory in runs["dir"]):
        with plugged(run.config.plugin):
            data, args = describe(run.config.dataset), arguments(run.config)
        shape = {key: args[key] for key in ("width", "depth", "tc")}
        found = mlp_topology(**shape, inputs=math.prod(data.shape), num_classes=data.classes)
        told = {key: getattr(found, key) for key in ("nn_mass", "nn_density", "params", "flops", "macs")}
        num_seg = run.config.data_args.get("num_seg", 2) if data.kind == "vectors" else None
        rows[run.name] = {"dataset": data.name, "num_seg": num_seg, **shape, "seed": run.config.seed, **told}
    table = pd.DataFrame.from_dict(rows, orient="index")
    metrics = runs.metrics
    numbers = metrics[metrics["metric"].isin(("top1", "loss", "mean", "std"))]
    if "layer" in numbers:
        numbers = numbers[numbers["layer"].isna() & (numbers["mode"].isna() | (numbers["mode"] == ldi_mode))]
    newest = numbers.groupby(["run", "kind", "metric"])["value"].last().unstack(["kind", "metric"])
    newest = newest.reindex(table.index)
    for kind, prefix in (("val", ""), ("train_epoch", "train_"), ("ldi", "ldi_")):
        for metric in ("mean", "std") if kind == "ldi" else ("top1", "loss"):
            table[prefix + metric] = newest.get((kind, metric), math.nan)
    table.insert(0, "epoch", runs.set_index("name")["epoch"])
    return table.rename_axis("run").reset_index()


# -- log files of the published programs -----------------------------------------------------------------------------


def train_lines(runs: Runs) -> list[str]:
    """A line for every epoch of every run: training accuracy (percent, while training) and mean training loss."""
    metrics = runs.metrics
    epochs = metrics[metrics["kind"] == "train_epoch"].pivot_table(
        index=["run", "epoch"], columns="metric", values="value", sort=False
    )
    return [f"{row.top1} {row.loss}" for row in epochs.itertuples()]


def result_lines(runs: Runs, num_seg: int = 2) -> list[str]:
    """A line for every run: NN-Mass, test accuracy, X, parameters, FLOPs, width, depth, tc and segments.

    X is the mean test loss for MNIST and the accuracy again for the generated data sets, as published.
    """
    return [
        line(row, row.top1, row.loss if row.dataset == "mnist" else row.top1, num_seg)
        for row in networks(runs).itertuples()
        if row.top1 == row.top1
    ]


def sigma_lines(runs: Runs, num_seg: int = 2, ldi_mode: str = "exact") -> list[str]:
    """A line for every run: NN-Mass, mean and deviation of LDI, parameters, FLOPs, width, depth, tc and segments."""
    return [
        line(row, row.ldi_mean, row.ldi_std, num_seg)
        for row in networks(runs, ldi_mode).itertuples()
        if row.ldi_mean == row.ldi_mean
    ]


def line(row: Any, first: float, second: float, num_seg: int) -> str:
    """Nine columns, with parameters as a float. MNIST has no segments: the ``num_seg`` that was given."""
    segments = num_seg if math.isnan(row.num_seg or math.nan) else int(row.num_seg)
    cells = (row.nn_mass, first, second, float(row.params), row.flops, row.width, row.depth, row.tc, segments)
    return " ".join(map(str, cells))


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Append to a log file; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.writelines(f"{line}\n" for line in lines)
