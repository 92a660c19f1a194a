"""Batches from memory: decoded images in one uint8 array (on the GPU when there is one), or vectors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from research.data import gather
from research.data.augment import Augment
from research.data.batches import Batch, DataInfo, Loader, Share, finish


@dataclass(frozen=True)
class Images:
    """Decoded images of any sizes: flat ``pixels`` uint8, where each begins, its size, and labels; all (N,) int64."""

    pixels: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    labels: np.ndarray

    @classmethod
    def of_one_size(cls, images: np.ndarray, labels: np.ndarray) -> Images:
        """From (N, H, W, C) uint8."""
        count, height, width, channels = images.shape
        offsets = np.arange(count, dtype=np.int64) * (height * width * channels)
        sizes = (np.full(count, side, np.int64) for side in (height, width))
        return cls(np.ascontiguousarray(images).reshape(-1), offsets, *sizes, labels)

    @classmethod
    def of_any_size(cls, images: list[np.ndarray], labels: np.ndarray) -> Images:
        """From a list of (H, W, C) uint8, which is emptied on the way so that memory is not held twice."""
        heights, widths = (np.array([image.shape[axis] for image in images], np.int64) for axis in (0, 1))
        ends = np.cumsum([image.size for image in images])
        pixels = np.empty(ends[-1] if len(ends) else 0, np.uint8)
        for i, end in enumerate(ends):
            pixels[end - images[i].size : end] = images[i].reshape(-1)
            images[i] = None
        return cls(pixels, np.concatenate([[0], ends[:-1]]).astype(np.int64), heights, widths, labels)

    def only(self, chosen: np.ndarray) -> Images:
        """The images ``chosen`` (bool (N,)); the pixels are shared, not copied."""
        return Images(self.pixels, *(each[chosen] for each in (self.offsets, self.heights, self.widths, self.labels)))


class VectorLoader(Loader):
    """Batches of a set of vectors (N, F) float32."""

    def __init__(self, info: DataInfo, share: Share, vectors: np.ndarray, labels: np.ndarray, device="cpu"):
        super().__init__(info, share, device)
        self.inputs = torch.from_numpy(vectors.astype(np.float32)).to(self.device)
        self.targets = torch.from_numpy(labels).to(self.device)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        rows = torch.from_numpy(self.rows(first, last)).to(self.device)
        for batch in rows.split(self.batch):
            yield self.inputs[batch], self.targets[batch]


class MemoryLoader(Loader):
    """Batches of images in memory: by the compiled kernel on the CPU, by torch on a GPU or where numba is missing.

    ``threads`` share the rows of a batch; the pixels do not depend on their number.
    """

    def __init__(
        self,
        info: DataInfo,
        share: Share,
        images: Images,
        augment: Augment,
        device: str | torch.device = "cpu",
        channels_last: bool = True,
        threads: int = 1,
    ):
        super().__init__(info, share, device)
        self.images, self.augment, self.channels_last = images, augment, channels_last
        self.finish = finish(info, augment, self.training)
        self.targets = torch.from_numpy(images.labels)
        self.kernel = _kernel() if self.device.type == "cpu" else None
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads) if threads > 1 and self.kernel else None
        if self.kernel is None:
            self._move_to_device()

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        rows = self.rows(first, last)
        draws = self.draws(self.augment, rows, self.images.heights, self.images.widths)
        rendered = self._compiled(rows, draws) if self.kernel else self._gathered(rows, draws)
        for inputs, targets in rendered:
            yield inputs if self.channels_last else inputs.contiguous(), targets

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()
            self.pool = None

    def _compiled(self, rows: np.ndarray, draws: np.ndarray) -> Iterator[Batch]:
        images, (channels, size, _) = self.images, self.info.shape
        for at in range(0, len(rows), self.batch):
            batch, drawn = rows[at : at + self.batch], draws[at : at + self.batch]
            inputs = torch.empty(len(batch), size, size, channels)
            out = inputs.numpy()
            parts = np.array_split(np.arange(len(batch)), self.threads)

            def render(part: np.ndarray, batch=batch, drawn=drawn, out=out) -> None:
                if len(part):
                    s = slice(part[0], part[-1] + 1)
                    stored = (images.pixels, images.offsets, images.heights, images.widths)
                    self.kernel(*stored, batch[s], drawn[s], self.finish, out[s])

            list((self.pool.map if self.pool else map)(render, parts))
            yield inputs.permute(0, 3, 1, 2), self.targets[torch.from_numpy(batch)]

    def _gathered(self, rows: np.ndarray, draws: np.ndarray) -> Iterator[Batch]:
        size = self.info.shape[-1]
        # the whole epoch's decisions move once, so that no step waits for the host
        on_device = {name: torch.from_numpy(draws[name].copy()).to(self.device) for name in draws.dtype.names}
        all_rows = torch.from_numpy(rows).to(self.device)
        for at in range(0, len(rows), self.batch):
            s = slice(at, at + self.batch)
            stored = [self.stored[0], *(column[all_rows[s]] for column in self.stored[1:])]
            drawn = {name: column[s] for name, column in on_device.items()}
            inputs = gather.render(*stored, drawn, self.finish, size, gather.taps_needed(draws[s], size))
            yield inputs.permute(0, 3, 1, 2), self.targets[all_rows[s]]

    def _move_to_device(self) -> None:
        images = self.images
        arrays = (images.pixels, images.offsets, images.heights, images.widths)
        self.stored = [torch.from_numpy(array).to(self.device) for array in arrays]
        scale, bias = (torch.from_numpy(line).view(-1, self.info.shape[0]).to(self.device) for line in self.finish[:2])
        self.finish = (scale, bias, *self.finish[2:])
        self.targets = self.targets.to(self.device)


def _kernel():
    """The compiled kernel, or None without numba."""
    try:
        from research.data.kernels import render_batch
    except ImportError:
        return None
    return render_batch
