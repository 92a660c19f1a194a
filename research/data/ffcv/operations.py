"""The operations that run inside FFCV. Import only through ``loader.py``: importing FFCV takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numba
import numpy as np
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import IMAGE_MODES, SimpleRGBImageDecoder
from ffcv.libffcv import imdecode
from ffcv.loader import Loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.transforms import ToDevice, ToTensor

from research.data.loader import new_memory
from research.data.pixel_kernels import render

__all__ = ["Epoch", "IntDecoder", "Loader", "Render", "ToDevice", "ToTensor", "most_threads"]

most_threads = numba.config.NUMBA_NUM_THREADS


def _set_num_threads(cls, count: int) -> None:
    """FFCV's own, but without also setting torch's threads, which would slow training down to the loader's number."""
    cls.num_threads = count
    numba.set_num_threads(count)


Compiler.set_num_threads = classmethod(_set_num_threads)


class Epoch(EpochIterator):
    """One pass of FFCV's thread; ``failure`` keeps the exception that ended it, which FFCV would lose.

    With ``new``, every batch is new memory. FFCV has a few buffers and writes into them again and again, so that every
    batch would have to be copied.
    """

    failure: Exception | None = None

    def __init__(self, loader: Loader, count: int, new: bool):
        self.new = new
        super().__init__(loader, np.arange(count, dtype=np.uint64))  # it starts the thread

    def run(self) -> None:
        if self.new:
            buffers = self.memory_allocations["operation"]
            buffers |= {node: New(like) for node, like in buffers.items() if like is not None}
        try:
            super().run()
        except Exception as error:
            self.failure = error


class New:
    """In the place of FFCV's buffers (slots, B, ...): new memory for each slot that is asked for."""

    def __init__(self, buffers: np.ndarray):
        self.shape, self.dtype = buffers.shape[1:], buffers.dtype

    def __getitem__(self, slot: int) -> np.ndarray:
        return new_memory(self.shape, self.dtype)


class Render(SimpleRGBImageDecoder):
    """Decode a stored image and render it as the DRAW record in its entry says: (S, S, C), finished as ``finish`` says.

    They are float32, or bytes where ``bytes_suffice`` (heights, widths) of the stored images.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        finish: tuple,
        bytes_suffice: Callable[[np.ndarray, np.ndarray], bool] = lambda heights, widths: False,
    ):
        super().__init__()
        self.channels, self.size, _ = shape
        self.finish, self.bytes_suffice = finish, bytes_suffice

    @cached_property
    def dtype(self) -> np.dtype:
        suffice = self.bytes_suffice(self.metadata["height"], self.metadata["width"])
        return np.dtype("u1" if suffice else "<f4")

    def declare_state_and_memory(self, previous_state):
        shape, dtype = (self.size, self.size, self.channels), self.dtype
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self):
        read, each, channels = self.memory_read, Compiler.get_iterator(), self.channels
        decompress, jpg = Compiler.compile(imdecode), IMAGE_MODES["jpg"]
        scale, bias, cutout, jitter, boxed, cubic = self.finish

        def used(image):
            return image if channels == 3 else np.ascontiguousarray(image[:, :, :channels])

        used = Compiler.compile(used)

        def one(stored, entry, out):
            height, width = np.int64(entry["height"]), np.int64(entry["width"])
            if entry["mode"] == jpg:
                image = np.empty((height, width, 3), np.uint8)
                decompress(stored, image, height, width, height, width, 0, 0, 1, 1, False, False)
            else:
                image = stored.reshape((height, width, 3))
            render(used(image), entry, (scale, bias, cutout, jitter, boxed, cubic), out)

        one = Compiler.compile(one)  # apart, because numba's parallel analysis fails on tuples of constant arrays

        def decode(batch_indices, destination, metadata, storage_state):
            for i in each(len(batch_indices)):
                entry = metadata[batch_indices[i]]
                one(read(entry["data_ptr"], storage_state), entry, destination[i])
            return destination[: len(batch_indices)]

        decode.is_parallel = True
        return decode
