"""GraM's measurements in runs, as frames: multipliers at their own or any other k, results against k, and the cost.

Everything comes from ``gram/epoch_EEE.npz`` and the metrics; nothing is trained or measured again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from research.errors import UsageError
from research.frames import Runs
from research.frames.comparison import each_arm
from research.frames.configurations import configuration, key, owner, word
from research.frames.groups import label_changes
from research.runs.paths import RunPaths


@dataclass(frozen=True)
class GramLayer:
    """GraM's measurement of one convolution with C input channels and (kh, kw) taps."""

    name: str
    nmi: np.ndarray  # (C, kh, kw) float64: normalised mutual information of centre and tap, k = 1; NaN where undefined
    corr: np.ndarray  # (kh, kw): mean over channels of NMI-k
    multiplier: np.ndarray  # (kh, kw): corr / mean(corr)
    samples: int  # pairs a tap
    bins: int  # of the histogram, an axis


@dataclass(frozen=True)
class GramRecord:
    """One measurement of GraM: its layers in order of depth."""

    epoch: int  # 0-based
    k: float
    variant: str
    layers: tuple[GramLayer, ...]


def gram_epochs(run_dir: Path | str) -> list[int]:
    """Epochs in which the run measured, in order; empty without GraM."""
    named = [path.stem.removeprefix("epoch_") for path in RunPaths(run_dir).multipliers.glob("epoch_*.npz")]
    return sorted(int(epoch) for epoch in named if epoch.isdecimal())


def with_gram(runs: Runs) -> Runs:
    """The runs that have measurements of GraM; with a warning not those that have one that cannot be read."""
    kept = []
    for name, directory in zip(runs["name"], runs["dir"], strict=True):
        try:
            kept.append(bool([load_gram(directory, epoch) for epoch in gram_epochs(directory)]))
        except UsageError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
            kept.append(False)
    return runs[kept]


def load_gram(run_dir: Path | str, epoch: int | None = None) -> GramRecord:
    """What GraM measured in ``epoch`` (``None``: the newest), from ``run_dir/gram/epoch_EEE.npz``.

    Raises:
        UsageError: the run has no such measurement, with those that it has; or its file cannot be read.
    """
    known = gram_epochs(run_dir)
    if not known:
        raise UsageError(f"run {Path(run_dir).name} has no GraM measurements; train with gram=true")
    epoch = known[-1] if epoch is None else epoch
    if epoch not in known:
        raise UsageError(f"run {Path(run_dir).name} measured nothing in epoch {epoch}; it did in {known}")
    path = RunPaths(run_dir).multipliers_of(epoch)
    try:
        return _read_gram(path)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UsageError(f"{path}: is no measurement of GraM: {error}") from None


def _read_gram(path: Path) -> GramRecord:
    with np.load(path) as file:
        layers = tuple(
            GramLayer(
                name=str(name),
                nmi=file[f"nmi_{i}"],
                corr=file[f"corr_{i}"],
                multiplier=file[f"multiplier_{i}"],
                samples=int(file[f"n_{i}"]),
                bins=int(file[f"bins_{i}"]),
            )
            for i, name in enumerate(file["names"])
        )
        return GramRecord(int(file["epoch"]), float(file["k"]), str(file["variant"]), layers)


def at_k(record: GramRecord, k: float) -> GramRecord:
    """The same measurement with another ``k``.

    Raises:
        UsageError: k is not positive.
    """
    import torch

    from research.measures.nmi import channel_mean, gradient_multiplier  # torch takes seconds

    def redone(layer: GramLayer) -> GramLayer:
        corr = channel_mean(torch.from_numpy(layer.nmi), k)
        return replace(layer, corr=corr.numpy(), multiplier=gradient_multiplier(corr).numpy())

    return replace(record, k=float(k), layers=tuple(map(redone, record.layers)))


def gram_taps(*records: GramRecord) -> pd.DataFrame:
    """Every tap of every layer in every record: the epochs of a run, or one epoch at several k.

    Columns: epoch, k, depth (0 = first layer), layer, dy, dx (pixels from the centre), distance, corr, multiplier.
    """
    rows = []
    for record in records:
        for depth, layer in enumerate(record.layers):
            height, width = layer.corr.shape
            for i, j in np.ndindex(height, width):
                dy, dx = i - (height - 1) // 2, j - (width - 1) // 2
                at = (record.epoch, record.k, depth, layer.name, dy, dx, float(np.hypot(dy, dx)))
                rows.append((*at, layer.corr[i, j], layer.multiplier[i, j]))
    names = ["epoch", "k", "depth", "layer", "dy", "dx", "distance", "corr", "multiplier"]
    return pd.DataFrame(rows, columns=names)


def gram_cost(runs: Runs) -> pd.DataFrame:
    """The cost of measuring, by measured epoch: run, epoch, seconds, training (seconds of its training pass), share.

    ``share`` is seconds / (seconds + training). The seconds are those of the statistics; the forward pass of the
    measured batches comes on top. A process's first measurement may include the compilation of the kernels.
    """
    rows = runs.metrics
    rows = rows[(rows["metric"] == "seconds") & rows["kind"].isin(["gram", "train_epoch"])]
    # a resumed run may have logged an epoch twice: its last row counts
    rows = rows.drop_duplicates([name for name in ("run", "kind", "epoch", "layer") if name in rows], keep="last")
    sums = rows.pivot_table(index=["run", "epoch"], columns="kind", values="value", aggfunc="sum")
    cost = sums.rename(columns={"gram": "seconds", "train_epoch": "training"}).reindex(columns=["seconds", "training"])
    cost = cost.dropna().rename_axis(columns=None).reset_index()
    return cost.assign(share=cost["seconds"] / (cost["seconds"] + cost["training"]))


def results_against_k(runs: Runs, metric: str = "last_top1", *, margin: float | None = None) -> pd.DataFrame:
    """Finished plain and GraM runs, a row for all that differ only in their seed.

    ========================  ==========================================================================
    ``setup`` ``method``      what else differs among these runs: network, data, other methods (also at their
                              defaults) …; GraM's other parameters
    ``k``                     of GraM; NaN without it
    ``values``                ``metric``, a column of ``runs``, of every seed
    ========================  ==========================================================================

    The other columns are those of :func:`research.frames.comparison.each_arm`: every k against plain training of the
    same setup, p adjusted over all of them.
    """
    runs = runs[runs["status"] == "finished"].understood()
    changes = list(map(configuration, runs.changes()))
    setups = [
        {"model": model} | {name: value for name, value in own.items() if owner(name) != "gram"}
        for own, model in zip(changes, runs["model"], strict=True)
    ]
    own_words = [
        [word(name, value) for name, value in own.items() if name.startswith("gram.") and name != "gram.k"]
        for own in changes
    ]
    frame = pd.DataFrame(
        {
            "seed": runs["seed"],
            "k": runs.get("gram.k", pd.Series(np.nan, index=runs.index)),
            "value": runs[metric].astype(float),
            "setup": _labels(setups),
            "method": list(map(" ".join, own_words)),
        },
        index=runs.index,
    )
    groups = frame.groupby(["setup", "method", "k"], dropna=False)
    named = pd.DataFrame([key for key, _ in groups], columns=["setup", "method", "k"])
    arms = {str(place): own.groupby("seed")["value"].mean() for place, (_, own) in enumerate(groups)}
    plain = {row.setup: str(row.Index) for row in named[named["k"].isna()].itertuples()}
    against = {str(row.Index): plain[row.setup] for row in named.dropna(subset="k").itertuples() if row.setup in plain}
    compared = each_arm(arms, against, margin=margin).drop(columns=["arm", "against"])
    return named.assign(values=[tuple(values) for values in arms.values()]).join(compared)


def _labels(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The differences among these parameters as labels; equal parameters have equal labels, different ones differ."""
    distinct = {key(own): own for own in changes}
    if len(distinct) < 2:
        return [""] * len(changes)
    labels = dict(zip(distinct, label_changes(list(distinct.values())), strict=True))
    return [labels[key(own)] for own in changes]
