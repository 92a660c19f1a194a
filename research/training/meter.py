"""Running means of a training epoch, read from the device once per row of metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from research.data.mixing import labels_of
from research.distributed import all_reduce
from research.processes import peak_memory


class Meter:
    """Loss, top-1, throughput and the share of time spent waiting for data, over a row and over the epoch.

    Between rows everything stays on the device. A row is taken at fixed steps and reduced over ranks, so the sums
    are the same numbers in the same order however often a run was interrupted, and equal on all ranks.
    """

    def __init__(self, run) -> None:
        self.losses = torch.zeros(run.config.log_interval * run.config.accumulation, device=run.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=run.device)
        self.seen = self.parts = 0  # images of this rank and micro-batches since the last row
        self.waited = 0.0
        self.row_started = time.perf_counter()
        self.seconds_before = 0.0
        self.new_epoch()

    def new_epoch(self) -> None:
        self.seconds_before += getattr(self, "epoch_seconds", 0.0)
        self.loss_sum = self.correct_sum = self.images = self.epoch_seconds = self.epoch_waited = 0.0

    @property
    def seconds_in_all(self) -> float:
        return self.seconds_before + self.epoch_seconds

    def waiting_for(self, loader) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``loader``, with the time spent waiting for each taken."""
        batches = iter(loader)
        self.row_started = time.perf_counter()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Count one micro-batch, mixed images as their larger label; no host synchronisation."""
        self.losses[self.parts] = loss.detach()
        self.correct += (logits.detach().argmax(1) == labels_of(targets)).sum()
        self.seen += len(targets)
        self.parts += 1

    def flush(self, run, wish: bool) -> tuple[dict[str, float], bool]:
        """The row since the last one, over all ranks; and whether any rank has ``wish``.

        Raises:
            UsageError: a loss is not finite; names the first such step.
        """
        wishes = self.losses.new_full((1,), float(wish))
        values = torch.cat([self.losses[: self.parts], self.correct[None], wishes]).double()
        *losses, correct, wished = all_reduce(values).tolist()
        self._check(run, losses)
        images, seconds = self.seen * run.world, time.perf_counter() - self.row_started
        loss = sum(losses) / (len(losses) * run.world)
        row = {
            "loss": loss,
            "top1": 100 * correct / images,
            "images_per_second": images / seconds,
            "data_wait": self.waited / seconds,
        }
        self.loss_sum += loss * images
        self.correct_sum += correct
        self.images += images
        self.epoch_seconds += seconds
        self.epoch_waited += self.waited
        self.correct.zero_()
        self.seen = self.parts = 0
        self.waited = 0.0
        self.row_started = time.perf_counter()
        return row, wished > 0

    def _check(self, run, losses: list[float]) -> None:
        for index, loss in enumerate(losses):
            if loss - loss != 0:  # nan or inf
                step = run.step - (self.parts - 1 - index) // run.config.accumulation
                raise run.diverged(f"loss is {loss}", step)

    def epoch_means(self) -> dict[str, float]:
        return {
            "loss": self.loss_sum / self.images,
            "top1": 100 * self.correct_sum / self.images,
            "seconds": self.epoch_seconds,
            "images_per_second": self.images / self.epoch_seconds,
            "data_wait": self.epoch_waited / self.epoch_seconds,
            "peak_memory": peak_memory(self.losses.device),
        }

    _SUMS = ("loss_sum", "correct_sum", "images", "epoch_seconds", "epoch_waited", "seconds_before", "seen", "parts")

    def state_dict(self) -> dict[str, Any]:
        """The sums; and, of a process that stops between two rows, what the next row has so far of it."""
        return {name: getattr(self, name) for name in self._SUMS} | {"losses": self.losses, "correct": self.correct}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._SUMS:
            setattr(self, name, state[name])
        self.losses = torch.cat([self.losses, self.losses.new_zeros(self.parts)])  # log_interval may be another now
        self.losses[: self.parts] = state["losses"][: self.parts]
        self.correct.copy_(state["correct"])
