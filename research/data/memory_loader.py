"""Batches from memory: decoded images in one uint8 array (on the GPU when there is one), or vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from research.data import torch_pixels as gather
from research.data.after_crop import AfterCrop
from research.data.augment import Augment
from research.data.draws import draw_evaluation
from research.data.loader import Batch, DataInfo, Loader, Share, finish, new_memory
from research.devices import send

SMALLEST_PART = 2**18  # pixels: to hand fewer to another thread takes longer than to render them


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


class InMemory(Loader):
    """Samples in memory: first decide, for the whole epoch, what to read of each sample; then read."""

    @abstractmethod
    def chosen(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """What :meth:`read` needs to know about every sample of batches ``first`` to ``last - 1``: arrays (n,)."""

    @abstractmethod
    def read(self, batch: int, *chosen: np.ndarray, reuse: bool = False) -> Iterator[Batch]:
        """Batches of ``batch`` samples that were :meth:`chosen`; with ``reuse`` each may overwrite the one before."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        return self.read(self.batch, *self.chosen(first, last))


def side_by_side(loaders: Sequence[Loader]) -> Iterator[Batch]:
    """The batches of K loaders that differ in their seed only, as one: (K B, ...) and (K B,), loader after loader.

    From memory, a step of all loaders is read at once, into one tensor. A batch is valid until the next is asked for:
    it has megabytes, and allocating them at every step costs a tenth of a step of the networks.
    """
    lead = loaders[0]
    if not isinstance(lead, InMemory):
        return (tuple(map(torch.cat, zip(*batches, strict=True))) for batches in zip(*loaders, strict=True))
    each = zip(*(loader.chosen(loader.start, len(loader)) for loader in loaders), strict=True)
    chosen = (np.stack([of_one.reshape(-1, lead.batch) for of_one in arrays], axis=1).reshape(-1) for arrays in each)
    return lead.read(len(loaders) * lead.batch, *chosen, reuse=True)


class VectorLoader(InMemory):
    """Batches of a set of vectors (N, F) float32."""

    def __init__(self, info: DataInfo, share: Share, vectors: np.ndarray, labels: np.ndarray, device="cpu"):
        super().__init__(info, share, device)
        self.inputs = torch.from_numpy(vectors.astype(np.float32)).to(self.device)
        self.targets = torch.from_numpy(labels).to(self.device)

    def chosen(self, first: int, last: int) -> tuple[np.ndarray]:
        return (self.rows(first, last),)

    def read(self, batch: int, rows: np.ndarray, reuse: bool = False) -> Iterator[Batch]:
        for at in send(torch.from_numpy(rows), self.device).split(batch):
            yield self.inputs[at], self.targets[at]


class MemoryLoader(InMemory):
    """Batches of images in memory: by the compiled kernel on the CPU, by torch on a GPU or where numba is missing.

    Images that need nothing but normalisation are only looked up and scaled. Up to ``threads`` threads share the rows
    of a large batch; the pixels do not depend on their number.
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
        self.after_crop = AfterCrop(augment, info, self.device, self.training)
        self.finish = finish(info, augment, self.training)
        self.targets = torch.from_numpy(images.labels)
        self.as_stored = self._as_stored()
        self.kernel = _kernel() if self.device.type == "cpu" and not self.as_stored else None
        self.threads = min(threads, max(1, self.batch * info.shape[-1] ** 2 // SMALLEST_PART))
        self.pool = ThreadPoolExecutor(self.threads) if self.threads > 1 and self.kernel else None
        if self.kernel is None:
            self._move_to_device()

    def chosen(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        rows = self.rows(first, last)
        if self.as_stored:
            return (rows,)
        return rows, self.draws(self.augment, rows, self.images.heights, self.images.widths)

    def read(self, batch: int, *chosen: np.ndarray, reuse: bool = False) -> Iterator[Batch]:
        if self.as_stored:
            batches = self._looked_up(batch, *chosen, reuse)
        else:
            batches = (self._compiled if self.kernel else self._gathered)(batch, *chosen)
            batches = self.after_crop(batches, chosen[1])
        for inputs, targets in batches:
            inputs = inputs.permute(0, 3, 1, 2)
            yield inputs if self.channels_last else inputs.contiguous(), targets

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()
            self.pool = None

    def _as_stored(self) -> bool:
        """Whether images need nothing but normalisation."""
        images, (channels, size, _) = self.images, self.info.shape
        sizes = np.unique([images.heights, images.widths])
        if (self.training and self.augment.drawn) or sizes.tolist() != [size]:
            return False
        box = draw_evaluation(self.augment, sizes, sizes, size)[["top", "left", "rows", "columns"]].item()
        return box == (0, 0, size, size) and not (images.offsets % (size * size * channels)).any()

    def _looked_up(self, batch: int, rows: np.ndarray, reuse: bool) -> Iterator[Batch]:
        pixels, offsets, _, _ = self.stored
        channels, size, _ = self.info.shape
        scale, bias = (line.flatten().tile(size) for line in self.finish[:2])
        pixels, places = pixels[: len(pixels) // len(scale) * len(scale)].view(-1, len(scale)), offsets // len(scale)
        inputs = torch.empty(0)
        for at in send(torch.from_numpy(rows), self.device).split(batch):
            if not reuse or len(inputs) != len(at):
                inputs = torch.empty(len(at), len(scale), device=self.device)
            # the product is rounded before the sum, as in the kernel: no fused addcmul
            inputs.copy_(pixels.index_select(0, places[at])).mul_(scale).add_(bias)
            yield inputs.view(-1, size, size, channels), self.targets[at]

    def _compiled(self, batch: int, rows: np.ndarray, draws: np.ndarray) -> Iterator[Batch]:
        images, (channels, size, _) = self.images, self.info.shape
        stored = (images.pixels, images.offsets, images.heights, images.widths)
        for at in range(0, len(rows), batch):
            now, drawn = rows[at : at + batch], draws[at : at + batch]
            out = new_memory((len(now), size, size, channels))
            parts = np.array_split(np.arange(len(now)), self.threads)

            def render(part: np.ndarray, now=now, drawn=drawn, out=out) -> None:
                if len(part):
                    s = slice(part[0], part[-1] + 1)
                    self.kernel(*stored, now[s], drawn[s], self.finish, out[s])

            list((self.pool.map if self.pool else map)(render, parts))
            yield torch.from_numpy(out), self.targets[torch.from_numpy(now)]

    def _gathered(self, batch: int, rows: np.ndarray, draws: np.ndarray) -> Iterator[Batch]:
        size = self.info.shape[-1]
        # the whole epoch's decisions move once, so that no step waits for the host
        on_device = {name: send(torch.from_numpy(draws[name].copy()), self.device) for name in draws.dtype.names}
        all_rows = send(torch.from_numpy(rows), self.device)
        for at in range(0, len(rows), batch):
            s = slice(at, at + batch)
            stored = [self.stored[0], *(column[all_rows[s]] for column in self.stored[1:])]
            drawn = {name: column[s] for name, column in on_device.items()}
            inputs = gather.render(
                *stored, drawn, self.finish, size, gather.taps_needed(draws[s], size, self.finish[-1])
            )
            yield inputs, self.targets[all_rows[s]]

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
        from research.data.pixel_kernels import render_batch  # numba may be missing
    except ImportError:
        return None
    return render_batch
