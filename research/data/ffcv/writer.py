"""FFCV's writer, made safe: a failing worker ends it with an error instead of leaving it waiting for ever.

Import only where an FFCV file is written: importing FFCV takes seconds.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import MIN_PAGE_SIZE, DatasetWriter, worker_job_indexed_dataset
from PIL import Image
from tqdm import tqdm

from research.resources import usable_cores

SMART_THRESHOLD = 100_000  # bytes of a raw picture above which mode="smart" compresses it
LARGEST_SIDE = 65_535  # FFCV keeps sides in 16 bits


class Samples:
    """(RGB image, label) by index, as FFCV's writer asks for them; ``image`` gives (H, W, C) uint8 with C = 1 or 3."""

    def __init__(self, image, labels: np.ndarray, max_resolution: int | None):
        self.image, self.labels = image, labels
        self.limit = min(max_resolution or LARGEST_SIDE, LARGEST_SIDE)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return self._bounded(np.broadcast_to(image := self.image(int(i)), (*image.shape[:2], 3))), int(self.labels[i])

    def _bounded(self, image: np.ndarray) -> np.ndarray:
        """The longer side at most the limit, by area averaging; the shorter one at least one pixel."""
        height, width = image.shape[:2]
        if max(height, width) <= self.limit:
            return np.ascontiguousarray(image)
        ratio = self.limit / max(height, width)
        size = tuple(max(1, int(side * ratio)) for side in (width, height))
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX))


def write_samples(path: Path, samples: Samples, mode: str, quality: int, largest: int, workers: int = 0) -> None:
    """Write ``samples`` to an FFCV file; ``largest`` is the size in bytes of the largest picture.

    Raises RuntimeError when a worker process fails (disk full, killed); the file is then incomplete.
    """
    page = max(4 * MIN_PAGE_SIZE, 1 << int(largest).bit_length())  # a picture must fit into a page
    threshold = SMART_THRESHOLD if mode == "smart" else None
    image = RGBImageField(write_mode=mode, jpeg_quality=quality, smart_threshold=threshold)
    fields = {"image": image, "label": IntField()}
    workers = workers or min(usable_cores(), -(-len(samples) // 100))
    _Writer(str(path), fields, page_size=page, num_workers=workers).from_indexed_dataset(samples)


class _Writer(DatasetWriter):
    def _write_common(self, num_samples: int, queue_content: Sequence, work_fn, extra_worker_args: tuple) -> None:
        """Like FFCV's writer, but does not wait for ever for a dead worker, nor leak its shared memory."""
        del work_fn
        self.num_samples = num_samples
        self.prepare()
        try:
            self.finalize(self._run_workers(list(queue_content), extra_worker_args))
        finally:
            self.metadata_sm.close()
            self.metadata_sm.unlink()

    def _run_workers(self, parts: list, extra_worker_args: tuple) -> list:
        fork = multiprocessing.get_context("fork")  # the samples may hold open archives, which cannot be sent
        todo, allocated, done = fork.Queue(), fork.Queue(), fork.Value(ctypes.c_uint64, 0)
        for part in [*parts, *[None] * self.num_workers]:
            todo.put(part)
        allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
        args = (todo, self.metadata_sm, self.metadata_type, self.fields, allocator, done, allocated, *extra_worker_args)
        workers = [fork.Process(target=worker_job_indexed_dataset, args=args) for _ in range(self.num_workers)]
        for worker in workers:
            worker.start()
        try:
            return self._follow(workers, allocated, done)
        finally:
            for worker in workers:
                worker.kill()  # whatever the handlers that it inherited do with a request
                worker.join()
            todo.cancel_join_thread()

    def _follow(self, workers: list, allocated, done) -> list:
        """Wait for every worker's allocations, showing progress."""
        import queue

        allocations, finished = [], 0
        with tqdm(total=self.num_samples, desc="writing", unit="img", disable=None) as bar:
            while finished < len(workers):
                failed = [worker.exitcode for worker in workers if worker.exitcode]
                if failed:
                    raise RuntimeError(f"a writing process ended with code {failed[0]}; see its message above")
                try:
                    allocations += allocated.get(timeout=0.1)
                    finished += 1
                except queue.Empty:
                    pass
                bar.update(done.value - bar.n)
        return allocations
