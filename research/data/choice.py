"""From a config to batches: find the data, refuse what cannot work, and choose the loader."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from research.data import arrays, folders, synthetic
from research.data.augment import Augment
from research.data.datasets import Dataset, arguments, data_root, describe
from research.data.draws import held_out
from research.data.ffcv import beton
from research.data.loader import DataInfo, Loader, Share
from research.data.memory_loader import Images, MemoryLoader, VectorLoader
from research.data.mixing import Mixing
from research.errors import UsageError
from research.resources import MEMORY_SHARE, Resources, decide, free_gpu_memory, free_memory, usable_gpus

__all__ = ["DataInfo", "Loader", "check", "drawn_arguments", "make_loader", "make_loaders", "make_mixing"]

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Source:
    """A data set found on disk: its classes, samples of each split, bytes when decoded, and how a split is read."""

    classes: int
    counts: dict[str, int]
    decoded_bytes: int
    read: Callable[[str], Images | tuple[np.ndarray, np.ndarray]]


def check(config, splits: Sequence[str] = SPLITS, loader: str = "") -> DataInfo:
    """What the data set of ``config`` is; UsageError for everything wrong that can be known before a run begins.

    Reads only, except that a missing data set is fetched when ``config.download`` says so. With ``splits=("val",)``
    nothing is asked of training data. ``loader`` is what was decided before; without it, it is decided now.
    """
    dataset = describe(config.dataset)
    values, problems = arguments(config.dataset, config.data_args)
    if problems:
        raise UsageError("\n".join(problems))
    kind = loader or _choose(config, splits)
    if kind == "ffcv":
        if values.get("holdout"):
            raise UsageError(f"data_args.holdout={values['holdout']}: FFCV files are read whole; use loader=memory")
        beton.require_ffcv()
        found = {split: beton.find(dataset.name, config.data_root, split) for split in splits}
        classes, counts = len(found[splits[0]].classes), {split: f.samples for split, f in found.items()}
    else:
        source = _source(config, splits)
        classes, counts = source.classes, source.counts
    if "train" in splits and config.batch_size > counts["train"]:
        raise UsageError(
            f"batch_size={config.batch_size}: {dataset.name} has only {counts['train']:,} training samples; "
            f"use batch_size<={counts['train']}"
        )
    for name in ("mixup", "cutmix"):
        if "train" in splits and config.batch_size == 1 and values.get(name):
            raise UsageError(f"data_args.{name}={values[name]:g}: mixes the images of a step, and batch_size=1 has one")
    return replace(_info(dataset, values, classes, {"train": 0, "val": 0} | counts), loader=kind)


def make_loaders(
    config, resources: Resources, splits: Sequence[str] = SPLITS, rank: int = 0, world: int = 1, device="cpu"
) -> dict[str, Loader]:
    """The loaders of one process for each of ``splits``, of one kind; see :class:`Loader` for what they promise."""
    info = check(config, splits, resources.loader)
    shares = [Share.of(config, split, rank, world) for split in splits]
    return {share.split: _make_loader(config, info, share, device, resources.workers) for share in shares}


def make_loader(config, split: str, rank: int = 0, world: int = 1, device="cpu") -> Loader:
    """The loader of one process for ``split`` ("train" or "val") alone."""
    splits = SPLITS if split == "train" else (split,)  # training looks at both, so that nothing is found out late
    info = check(config, splits)
    return _make_loader(config, info, Share.of(config, split, rank, world), device, decide(config, info.loader).workers)


def _make_loader(config, info: DataInfo, share: Share, device, workers: int) -> Loader:
    dataset = describe(config.dataset)
    values, _ = arguments(config.dataset, config.data_args)
    if info.loader == "ffcv":
        from research.data.ffcv.loader import BetonLoader  # FFCV may be missing, and takes seconds

        found = beton.find(dataset.name, config.data_root, share.split)
        return BetonLoader(info, share, found, Augment(**values), device, config.channels_last, workers)
    samples = _source(config, SPLITS if info.train else (share.split,)).read(share.split)
    if dataset.kind == "vectors":
        return VectorLoader(info, share, *samples, device)
    return MemoryLoader(info, share, samples, Augment(**values), device, config.channels_last, workers)


def make_mixing(config, loader: Loader) -> Mixing:
    """How the images of a step of the training ``loader`` are mixed with each other."""
    values, _ = arguments(config.dataset, config.data_args)
    augment = Augment() if describe(config.dataset).kind == "vectors" else Augment(**values)
    return Mixing(augment, loader.info, loader.share.seed)


def drawn_arguments(config) -> dict[str, Any]:
    """The ``data_args`` that draw a training input anew every epoch, with their values; none: it is always the same."""
    values, _ = arguments(config.dataset, config.data_args)
    if describe(config.dataset).kind == "vectors":
        return {}
    augment = Augment(**values)
    return {name: values[name] for name in augment.drawn + augment.mixed}


def _info(dataset: Dataset, values: dict, classes: int, counts: dict[str, int]) -> DataInfo:
    if dataset.kind == "vectors":
        return DataInfo(dataset.name, classes, dataset.shape, dataset.mean, dataset.std, counts["train"], counts["val"])
    augment, channels = Augment(**values), dataset.shape[0]
    size = augment.size(dataset)
    mean, std = augment.normalisation(dataset)
    return DataInfo(dataset.name, classes, (channels, size, size), mean, std, counts["train"], counts["val"])


def _choose(config, splits: Sequence[str]) -> str:
    """``"memory"`` or ``"ffcv"``. loader=auto takes memory when the decoded images fit, else the FFCV file.

    Every process has its own copy, in the machine's memory and on its GPU.
    """
    dataset = describe(config.dataset)
    if config.loader == "ffcv":
        if dataset.kind == "vectors":
            raise UsageError(f"loader='ffcv': {dataset.name} is a set of vectors; use loader=memory")
        return "ffcv"
    if config.loader == "memory" or dataset.kind != "folder":
        return "memory"
    limit = free_memory() // MEMORY_SHARE // config.processes
    files = [beton.path_of(dataset.name, config.data_root, split) for split in splits]
    written = all(files)
    if written and sum(file.stat().st_size for file in files) > limit:  # decoded they are more: nothing need be listed
        return "ffcv"
    try:
        needed = _source(config, splits).decoded_bytes
    except UsageError:
        if written:
            return "ffcv"
        raise
    if needed <= limit and (gpus := usable_gpus(config)):
        limit = free_gpu_memory(min(gpus, config.processes)) // MEMORY_SHARE
    if needed <= limit:
        return "memory"
    if written:
        return "ffcv"
    raise UsageError(
        f"{dataset.name}: about {needed / 1e9:.1f} GB of decoded images exceed the {limit / 1e9:.1f} GB that "
        f"loader=auto may take for each process; "
        f"run `research data write {dataset.name} --root {data_root(config.data_root)}` once, or set loader=memory"
    )


def _source(config, splits: Sequence[str] = SPLITS) -> Source:
    """The samples of a config's data set, found but not read."""
    dataset = describe(config.dataset)
    if dataset.kind == "vectors":
        counts = {split: synthetic.BINS * each for split, each in synthetic.PER_BIN.items()}
        num_seg = arguments(config.dataset, config.data_args)[0]["num_seg"]

        def points(split: str) -> tuple[np.ndarray, np.ndarray]:
            return synthetic.points(dataset.name, split), synthetic.labels(counts[split], num_seg)

        return Source(dataset.classes, counts, 0, points)
    holdout = arguments(config.dataset, config.data_args)[0]["holdout"]
    source = _images_source(config, dataset, SPLITS if holdout else splits)
    return _held_out(source, holdout) if holdout else source


def _images_source(config, dataset: Dataset, splits: Sequence[str]) -> Source:
    root = str(config.data_root or os.environ.get("RESEARCH_DATA", ""))
    if dataset.kind == "folder":
        return _folder_source(dataset.name, root, tuple(splits))
    if dataset.read:
        counts = {split: len(_images_of(dataset.read, dataset.name, root, split).labels) for split in splits}
        read = partial(_images_of, dataset.read, dataset.name, root)
    else:
        counts = {split: arrays.count(dataset.name, root, split, config.download) for split in splits}
        read = partial(_images, dataset.name, root, download=config.download)
    return Source(dataset.classes, counts, sum(counts.values()) * math.prod(dataset.shape), read)


def _held_out(source: Source, count: int) -> Source:
    """``source`` with ``count`` of its training images in the place of its validation set."""
    images = source.counts["train"]
    if count >= images:
        raise UsageError(f"data_args.holdout={count}: must be below the {images:,} training images")

    def read(split: str) -> Images:
        everything = source.read("train")
        chosen = held_out(everything.labels, count)
        return everything.only(chosen if split == "val" else ~chosen)

    return replace(source, counts={"train": images - count, "val": count}, read=read)


@lru_cache(maxsize=4)  # check, the training and the validation loader of a process share one copy
def _images(name: str, root: str, split: str, download: bool) -> Images:
    return Images.of_one_size(*arrays.read_split(name, root, split, download))


@lru_cache(maxsize=4)
def _images_of(read: Callable, name: str, root: str, split: str) -> Images:
    """The samples of a data set that has a reader of its own."""
    folder = data_root(root)
    return Images.of_one_size(*arrays.checked(name, folder, *read(folder, split)))


@lru_cache(maxsize=2)  # a million files are listed once a process
def _folder_source(name: str, root: str, splits: tuple[str, ...]) -> Source:
    found = folders.find(name, root, splits)

    def read(split: str) -> Images:
        decoded, reasons = found[split].all_decoded(f"{name} {split}")
        folders.refuse(name, reasons)
        return Images.of_any_size(decoded, found[split].labels)

    counts = {split: len(pictures) for split, pictures in found.items()}
    return Source(len(next(iter(found.values())).classes), counts, sum(p.decoded_bytes() for p in found.values()), read)
