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

from research.data.after_crop import AfterCrop
from research.data.augment import Augment
from research.data.draws import DRAW, draw_evaluation
from research.data.ffcv.beton import Beton
from research.data.loader import Batch, DataInfo, Loader, Share, finish
from research.data.torch_pixels import finished, taps_needed
from research.devices import send

AHEAD = 2  # batches that FFCV prepares in advance


class BetonLoader(Loader):
    """Batches of an FFCV file; ``threads`` of FFCV decode, the pixels do not depend on their number.

    A GPU gets them from FFCV's pinned memory, on a stream beside the one that computes, and normalises and cuts out
    itself. They travel as bytes where images are only cropped and mirrored; what was resized or recoloured lies between
    two bytes and travels as float32, so that its pixels are those of every other loader.
    """

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
        self.after_crop = AfterCrop(augment, info, self.device, self.training)
        ffcv, done = _ffcv(), finish(info, augment, self.training)
        decoder = ffcv.Render(info.shape, done)
        if self.device.type == "cuda":
            lines = (torch.from_numpy(line).view(-1, info.shape[0]) for line in done[:2])
            self.finish = (*(send(line, self.device) for line in lines), *done[2:])
            raw = (np.ones_like(done[0]), np.zeros_like(done[1]), 0, *done[3:])
            decoder = ffcv.Render(info.shape, raw, self._bytes_suffice)
        self.pipeline = ffcv.Loader(
            str(file.path),
            batch_size=self.batch,
            num_workers=min(threads, ffcv.most_threads),
            os_cache=True,
            drop_last=False,
            batches_ahead=AHEAD,
            pipelines={"image": [decoder, *self._moves()], "label": [ffcv.IntDecoder(), *self._moves()]},
        )
        self.samples = self.pipeline.reader.metadata

    def _moves(self) -> list:
        """What brings a field to the GPU."""
        return [_ffcv().ToTensor(), _ffcv().ToDevice(self.device)] if self.device.type == "cuda" else []

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        table = self._table(self.rows(first, last))
        if not len(table):
            return
        self.pipeline.reader.metadata = table  # the epoch's thread takes it when it starts
        on_gpu = self.device.type == "cuda"
        ready = _drain(_ffcv().Epoch(self.pipeline, len(table), new=not on_gpu))
        ready = self._finished(ready, table["f0"]) if on_gpu else _tensors(ready)
        for inputs, targets in self.after_crop(ready, table["f0"]):
            inputs = inputs.permute(0, 3, 1, 2)
            yield inputs if self.channels_last else inputs.contiguous(), targets

    def _finished(self, batches: Iterator[Batch], drawn: np.ndarray) -> Iterator[Batch]:
        """``batches`` on the GPU, (B, S, S, C) and (B, 1), finished as ``drawn`` says; in memory of their own."""
        cut = {name: send(torch.from_numpy(drawn[name].copy()), self.device) for name in ("cut_row", "cut_column")}
        at = 0
        for inputs, targets in batches:
            now = {name: column[at : at + len(inputs)] for name, column in cut.items()}
            at += len(inputs)
            yield finished(inputs, now, self.finish), targets.reshape(-1).clone()

    def _bytes_suffice(self, heights: np.ndarray, widths: np.ndarray) -> bool:
        """Whether images of these sizes are only cropped and mirrored."""
        size, augment = self.info.shape[-1], self.augment
        if self.training and (augment.crop == "resized" or augment.jitter):
            return False
        boxes = draw_evaluation(augment, heights.astype(np.int64), widths.astype(np.int64), size)
        return not taps_needed(boxes, size, augment.interpolation == "bicubic")

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


def _tensors(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
    for inputs, targets in batches:
        yield torch.from_numpy(inputs), torch.from_numpy(targets).reshape(-1)


def _drain(epoch) -> Iterator[tuple[np.ndarray, np.ndarray] | Batch]:
    """What an FFCV epoch produces, arrays or tensors of the GPU, in the few buffers that it has.

    No exception of its thread is lost, and the thread ends with this generator. The stream that computes waits for the
    one that a batch came on, as in FFCV's own iterator.
    """
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
            slot, batch = got
            _await(epoch, slot)
            yield batch
    finally:
        epoch.close()
        epoch.join(timeout=10)
        for slot in range(len(epoch.cuda_streams)):  # before its buffers are used for something else
            _await(epoch, slot)


def _await(epoch, slot: int) -> None:
    """Let what is computed from now on come after what was sent through buffer ``slot``; the host does not wait."""
    if (stream := epoch.cuda_streams[slot]) is not None:  # without CUDA there are none
        epoch.current_stream.wait_stream(stream)


@cache
def _ffcv():
    """The parts of FFCV that are used, imported once (this takes seconds) and without its effect on torch's threads."""
    threads = torch.get_num_threads()
    from research.data.ffcv import operations as pipeline  # FFCV may be missing, and takes seconds

    torch.set_num_threads(threads)
    return pipeline
