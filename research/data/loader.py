"""The contract of every loader: which samples are in which batch, on which process, without side effects."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch

from research.data.augment import Augment
from research.data.draws import draw_evaluation, draw_training, permutation
from research.errors import UsageError

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class DataInfo:
    """A data set as the network sees it: ``shape`` of one input, normalisation, and counts of samples."""

    name: str
    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    val: int
    loader: str = "memory"
    """``memory`` or ``ffcv``: decided once, because what is free to take changes while data is read."""

    def count(self, split: str) -> int:
        return {"train": self.train, "val": self.val}[split]


@dataclass(frozen=True)
class Share:
    """The share of one process: the split, its rank among all, images per step over all processes, and the seed."""

    split: str
    rank: int
    world: int
    batch_size: int
    seed: int

    @classmethod
    def of(cls, config, split: str, rank: int, world: int) -> Share:
        """What ``config`` gives this process; UsageError when a step does not divide evenly."""
        if config.batch_size % world:
            raise UsageError(f"batch_size={config.batch_size}: must divide into {world} equal parts, one a process")
        seed = config.seed if config.order_seed is None else config.order_seed
        return cls(split, rank, world, config.batch_size, seed)


class Loader(ABC):
    """Batches of one process: ``for inputs, targets in loader`` gives (B, C, H, W) float32 and (B,) int64.

    Training: step s of epoch e takes ``permutation(seed, e)[s * batch_size : (s + 1) * batch_size]`` and rank r its
    r-th part; what is left over after the last full step is dropped. Validation: samples ``rank, rank + world, …`` in
    stored order, each exactly once. Every batch is new memory. :meth:`set_epoch` chooses the epoch and its first batch.
    """

    def __init__(self, info: DataInfo, share: Share, device: str | torch.device = "cpu"):
        self.info, self.share, self.device = info, share, torch.device(device)
        self.training = self.shuffled = share.split == "train"
        self.batch = share.batch_size // share.world
        self.set_epoch(0)

    def __len__(self) -> int:
        if self.shuffled:
            return self.info.train // self.share.batch_size
        mine = len(range(self.share.rank, self.info.count(self.share.split), self.share.world))
        return -(-mine // self.batch)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Iterate epoch ``epoch`` next, from batch ``start`` on; batches before ``start`` are never read."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(self.start, len(self))

    def head(self, count: int) -> Iterator[Batch]:
        """The first ``count`` batches of the current epoch, without any effect on other iterations."""
        return self.batches(0, min(count, len(self)))

    def in_order(self) -> Loader:
        """The split in stored order as validation is read, each sample exactly once, looking as in the current epoch.

        It shares memory and threads with this loader: iterate over one at a time, and close only this one.
        """
        loader = copy(self)
        loader.shuffled = False
        loader.set_epoch(self.epoch)
        return loader

    def close(self) -> None:  # noqa: B027 - most loaders hold nothing
        """Release threads and memory; the loader must not be used afterwards."""

    @abstractmethod
    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Batches ``first`` to ``last - 1`` of the current epoch."""

    def rows(self, first: int, last: int) -> np.ndarray:
        """Sample indices of batches ``first`` to ``last - 1`` of this process, one after another: int64 (n,)."""
        share = self.share
        if not self.shuffled:
            mine = np.arange(share.rank, self.info.count(share.split), share.world)
            return mine[first * self.batch : last * self.batch]
        steps = permutation(self.info.train, share.seed, self.epoch)[: len(self) * share.batch_size]
        mine = steps.reshape(len(self), share.world, self.batch)[first:last, share.rank]
        return np.ascontiguousarray(mine).reshape(-1)

    def draws(self, augment: Augment, rows: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """What happens to samples ``rows`` of the given sizes in the current epoch: DRAW (n,)."""
        size, heights, widths = self.info.shape[-1], heights[rows].astype(np.int64), widths[rows].astype(np.int64)
        if self.training:
            return draw_training(augment, rows, heights, widths, self.share.seed, self.epoch, size)
        return draw_evaluation(augment, heights, widths, size)


def new_memory(shape: tuple[int, ...], dtype: np.dtype | type = np.float32) -> np.ndarray:
    """An array not yet filled, for a batch: (shape), aligned as torch's own memory is.

    NumPy asks for huge pages where an array has megabytes, torch does not: the system clears these four times as fast.
    """
    size, alignment = math.prod(shape) * np.dtype(dtype).itemsize, 64
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size].view(dtype).reshape(shape)


def finish(info: DataInfo, augment: Augment, training: bool) -> tuple[np.ndarray, np.ndarray, int, bool, bool, bool]:
    """How pixels end: (scale (S * C,), bias (S * C,), cutout, colours change?, crop before resizing?, bicubic?).

    RandAugment takes pixels from 0 to 255: with it, they are normalised and cut out later (`after_crop.py`).
    """
    mean, std = (np.tile(values, info.shape[-1]) for values in (info.mean, info.std))
    scale, bias = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    cubic = augment.interpolation == "bicubic"
    if not training:
        return scale, bias, 0, False, False, cubic
    last = (np.ones_like(scale), np.zeros_like(bias), 0) if augment.randaugment else (scale, bias, augment.cutout)
    return *last, augment.jitter > 0, augment.crop == "resized", cubic
