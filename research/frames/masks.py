"""Masks of MLPs at initialisation as frames: numbers of each run, and how well they tell the accuracy it reaches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from research.checkpoints import weights
from research.config import Config
from research.data.choice import make_loader
from research.data.loader import DataInfo
from research.errors import UsageError
from research.frames import Runs
from research.frames.comparison import correlation, holm
from research.layers.masked import MASK, masks_among
from research.measures.ldi import sequence_ldi
from research.measures.paths import living, paths
from research.plugins.scope import plugged
from research.runs.network import network_of
from research.runs.paths import RunPaths
from research.runs.run import Run

IMAGES = 300  # of the first training batches: their Jacobians, and their statistics in batch norm
PREDICTORS = {
    "log_active": "log10 of active weights",
    "living_1": "living units, layer 1 (%)",
    "living_2": "living units, layer 2 (%)",
    "log_paths": "log10 (1 + paths), least output",
    "ldi": "LDI",
    "mass": "density x width, summed",
}

BEYOND = ("log_active", "living_1", "living_2")  # what a predictor is asked to tell more than
MODELS = {
    "weights": ("log_active",),
    "weights, living units": BEYOND,
    "weights, living units, paths": (*BEYOND, "log_paths"),
    "weights, living units, LDI": (*BEYOND, "ldi"),
    "weights, LDI": ("log_active", "ldi"),
    "weights, paths": ("log_active", "log_paths"),
}


def mask_numbers(runs: Runs) -> pd.DataFrame:
    """What the first weights and masks of finished MLPs under masks that never change tell, a row a run.

    Columns: run, seed, arm (the name without the seed), sparsity, power (exponent of the distribution over the layers;
    NaN of copied masks), active (weights), the ``PREDICTORS``, top1 (percent, last epoch) and ``log_odds`` of an error.
    Inputs that are the same in all training images feed nothing.

    Raises:
        UsageError: there is no such run.
    """
    rows, data = [], {}
    runs = runs.understood()
    for run in runs[runs["last_top1"].notna()].itertuples():
        config = Run.open(run.dir).config
        given = config.hooks.get("static_sparse")
        if given is None:
            continue
        if (where := (config.dataset, repr(config.data_args), config.data_root)) not in data:
            data[where] = _training_images(config)
        info, images, varied = data[where]
        network = network_of(config, info.classes, info.shape, torch.device("cpu"), without="masks")
        try:
            masks = list(_masks(Path(run.dir)).values())
        except UsageError as error:
            warnings.warn(f"{run.name} is left out: {error}", stacklevel=2)
            continue
        if not isinstance(network, nn.Sequential) or [mask.ndim for mask in masks] != [2] * 3:
            continue  # no MLP with two hidden layers
        power = given.get("er_power", 1.0) if given.get("distribution", "uniform") != "uniform" else 0.0
        row = {"run": run.name, "seed": config.seed, "arm": run.name.rpartition("-seed-")[0] or run.name}
        row |= {"sparsity": given.get("sparsity"), "power": np.nan if given.get("copy_mask_from") else power}
        row |= numbers_of(network, masks, images, varied) | {"top1": run.last_top1}
        rows.append(row)
    if not rows:
        raise UsageError("no finished run is an MLP with two hidden layers under masks that never change")
    table = pd.DataFrame(rows)
    return table.assign(log_odds=np.log((100 - table["top1"]) / table["top1"]))


def numbers_of(network: nn.Sequential, masks: Sequence[Tensor], images: Tensor, varied: Tensor) -> dict[str, float]:
    """The ``PREDICTORS`` of a ``network`` with its first weights under ``masks``, in order, at ``images`` (N, ...).

    ``varied`` (bool) are the inputs that are not always the same.
    """
    layers = [module for module in network if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer, mask in zip(layers, masks, strict=True):
            layer.weight.mul_(mask)
    first, second, *_ = living(masks, varied)
    hidden = masks[:-1]
    return {
        "active": sum(int(mask.sum()) for mask in masks),
        "log_active": float(np.log10(sum(int(mask.sum()) for mask in masks))),
        "living_1": 100 * float(first.double().mean()),
        "living_2": 100 * float(second.double().mean()),
        "log_paths": float(torch.log10(1 + paths(masks, varied).min())),
        "ldi": sequence_ldi(network, images).mean,
        "mass": float(sum(mask.double().mean() * len(mask) for mask in hidden)),
    }


def _masks(run: Path) -> dict[str, Tensor]:
    """The masks of a run's best weights, by tensor, in the order of the network."""
    tensors = weights.read(RunPaths(run).best).tensors
    found = {name.removesuffix(MASK): mask.bool() for name, mask in masks_among(tensors).items()}
    return dict(sorted(found.items(), key=lambda each: [int(w) if w.isdigit() else w for w in each[0].split(".")]))


def _training_images(config: Config) -> tuple[DataInfo, Tensor, Tensor]:
    """What the data are, the first training images, and which inputs are not the same in all training images."""
    with plugged(config.plugin):
        loader = make_loader(config, "train")
    loader.set_epoch(0)
    images = torch.cat([inputs for inputs, _ in loader])
    loader.close()
    return loader.info, images[:IMAGES], (images.amax(0) > images.amin(0)).flatten()


def left_out(table: pd.DataFrame, columns: Sequence[str], family: str = "power", y: str = "log_odds") -> float:
    """R² of ``y`` in families that were left out: a linear model of ``columns``, fitted on the others, predicts each.

    Against the mean of all; below 0 it predicts worse than that mean.
    """
    predicted = pd.Series(np.nan, index=table.index)
    if table[family].nunique() < 2:
        return float("nan")
    for _, rows in table.groupby(family):
        others = table.drop(rows.index)
        predicted[rows.index] = predict(others, rows, columns, y)
    return float(1 - ((table[y] - predicted) ** 2).sum() / ((table[y] - table[y].mean()) ** 2).sum())


def predict(known: pd.DataFrame, asked: pd.DataFrame, columns: Sequence[str], y: str = "log_odds") -> np.ndarray:
    """``y`` of the ``asked`` rows by least squares in ``columns`` over the ``known`` ones."""
    design = [np.column_stack([np.ones(len(rows)), rows[list(columns)]]) for rows in (known, asked)]
    return design[1] @ np.linalg.lstsq(design[0], known[y].to_numpy())[0]


def asked_of(table: pd.DataFrame) -> pd.DataFrame:
    """LDI and paths of :func:`mask_numbers` against the error, plainly and given ``BEYOND`` (Spearman, 95 %; Holm)."""
    rows = []
    for name in ("ldi", "log_paths"):
        plain = correlation(table[name], table["log_odds"])
        beyond = correlation(table[name], table["log_odds"], given=table[list(BEYOND)])
        rows.append({"number": name, "n": plain.n, "alone": plain.value, "alone_low": plain.low})
        rows[-1] |= {"alone_high": plain.high, "given living units": beyond.value, "low": beyond.low}
        rows[-1] |= {"high": beyond.high, "p": beyond.p}
    found = pd.DataFrame(rows)
    return found.assign(p_holm=holm(found["p"]))


def left_out_table(table: pd.DataFrame) -> pd.DataFrame:
    """R² of every model of ``MODELS``: fitted to all, and in distributions that were left out."""
    rows = []
    for name, columns in MODELS.items():
        error = table["log_odds"] - predict(table, table, columns)
        fitted = 1 - (error**2).sum() / ((table["log_odds"] - table["log_odds"].mean()) ** 2).sum()
        rows.append({"model": name, "R2 fitted": fitted, "R2 left out": left_out(table, columns)})
    return pd.DataFrame(rows)


def predictions(table: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Top-1 (%) of ``others`` as each of ``MODELS``, fitted to ``table``, foretells it, a row an arm and model."""
    rows = []
    for name, columns in MODELS.items():
        told = 100 / (1 + np.exp(predict(table, others, columns)))
        missed = others.assign(told=told, missed=told - others["top1"])
        for arm, own in missed.groupby("arm", sort=False):
            row = {"model": name, "arm": arm, "n": len(own), "top1": own["top1"].mean(), "foretold": own["told"].mean()}
            rows.append(row | {"mean abs. error": own["missed"].abs().mean()})
    return pd.DataFrame(rows)
