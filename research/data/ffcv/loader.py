"""Batches from an FFCV file, with FFCV's hazards contained here.

FFCV reads and decodes in its own thread; what each image looks like is decided by us. Every epoch FFCV gets a table of
samples that is already in the order of the epoch, with the DRAW record of each sample attached to its entry. So nothing
is compiled again, order and crops are those of every other loader, and resuming reads nothing of what it skips.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch

from research.data.augment import DRAW, Augment
from research.data.ffcv.beton import Beton
from research.data.loader import Batch, DataInfo, Loader, Share, finish

AHEAD = 2  # batches that FFCV prepares in advance


class BetonLoader(Loader):
    """Batches of an FFCV file; ``threads`` of FFCV decode, the pixels do not depend on their number."""

    def __init__(
        self,
        info: DataInfo,
        share: Share,
        file: Beton,
        augment: Augment,
        device: str | torch.device = "cpu",
        channels_last: bool = True,
        threads: int = 1,
    ):
        super().__init__(info, share, device)
        self.augment, self.channels_last = augment, channels_last
        ffcv = _ffcv()
        decoder = ffcv.Render(info.shape, finish(info, augment, self.training))
        self.pipeline = ffcv.Loader(
            str(file.path),
            batch_size=self.batch,
            num_workers=min(threads, ffcv.most_threads),
            os_cache=True,
            drop_last=False,
            batches_ahead=AHEAD,
            pipelines={"image": [decoder], "label": [ffcv.IntDecoder()]},
        )
        self.samples = self.pipeline.reader.metadata

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        table = self._table(self.rows(first, last))
        if not len(table):
            return
        self.pipeline.reader.metadata = table  # the epoch's thread takes it when it starts
        epoch = _ffcv().Epoch(self.pipeline, np.arange(len(table), dtype=np.uint64))
        for inputs, targets in _drain(epoch):
            # FFCV writes into the same few buffers again and again: what leaves is a copy
            inputs = torch.from_numpy(inputs).to(self.device, copy=True).permute(0, 3, 1, 2)
            targets = torch.from_numpy(targets).to(self.device, copy=True).reshape(-1)
            yield inputs if self.channels_last else inputs.contiguous(), targets

    def _table(self, rows: np.ndarray) -> np.ndarray:
        """FFCV's entries (image, label) of samples ``rows`` in this order, each image's with its DRAW record."""
        image, label = (self.samples[name] for name in self.samples.dtype.names)
        fields = [
            (name, kind.dtype if hasattr(kind, "dtype") else kind[0]) for name, kind in image.dtype.fields.items()
        ]
        entry = np.dtype(fields + [(name, DRAW[name]) for name in DRAW.names], align=True)
        table = np.empty(len(rows), np.dtype([("f0", entry), ("f1", label.dtype)], align=True))
        for name, _ in fields:
            table["f0"][name] = image[name][rows]
        drawn = self.draws(self.augment, rows, image["height"], image["width"])
        for name in DRAW.names:
            table["f0"][name] = drawn[name]
        table["f1"] = label[rows]
        return table


def _drain(epoch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What an FFCV epoch produces: no exception of its thread is lost, and the thread ends with this generator."""
    try:
        while True:
            try:
                got = epoch.output_queue.get(timeout=0.2)
            except queue.Empty:
                if epoch.is_alive() or not epoch.output_queue.empty():
                    continue
                raise RuntimeError(f"FFCV's thread failed: {epoch.failure!r}") from epoch.failure
            if got is None:
                return
            yield got[1]
    finally:
        epoch.close()
        epoch.join(timeout=10)


@cache
def _ffcv():
    """The parts of FFCV that are used, imported once (this takes seconds) and without its effect on torch's threads."""
    threads = torch.get_num_threads()
    from research.data.ffcv import operations as pipeline  # FFCV may be missing, and takes seconds

    torch.set_num_threads(threads)
    return pipeline
