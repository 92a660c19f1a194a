"""Means over an epoch that a method logs: summed on the device, exact over batches, processes and interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from research.distributed import all_reduce
from research.hooks.base import Hook

if TYPE_CHECKING:
    from research.runs.run import Run


class EpochMeans:
    """Running sums of named numbers, each the mean over a batch, weighted by the size of the batch.

    Call ``add`` with every micro-batch, ``step_end`` with every step, ``take`` at the end of the epoch, on all ranks.
    """

    def __init__(self, names: Sequence[str], device: torch.device):
        self.names = list(names)
        # the last entry counts samples; of the epoch and equal on all ranks, and of this rank since the last row
        self.epoch, self.recent = (torch.zeros(len(names) + 1, dtype=torch.float64, device=device) for _ in range(2))

    def add(self, means: Tensor, count: int) -> None:
        """Count ``means`` (one a name) of ``count`` samples; no host synchronisation."""
        self.recent[:-1] += count * means.detach()
        self.recent[-1] += count

    def step_end(self, run: Run) -> None:
        if run.row_due:  # state must be equal on all ranks when they take a checkpoint
            self.epoch += all_reduce(self.recent)
            self.recent.zero_()

    def take(self) -> dict[str, float]:
        """The means by name; the sums begin anew."""
        *sums, count = self.epoch.tolist()
        self.epoch.zero_()
        return {name: total / count for name, total in zip(self.names, sums, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "recent": self.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch.copy_(state["epoch"])
        self.recent.copy_(state["recent"])


class LogsEpochMeans(Hook):
    """A method that logs means over every epoch, as rows of kind ``row``.

    ``setup`` makes ``means``, or leaves it None where the method does nothing; ``loss`` adds every micro-batch to it.
    """

    row: ClassVar[str]
    means: EpochMeans | None = None

    def step_end(self, run: Run) -> None:
        if self.means:
            self.means.step_end(run)

    def epoch_end(self, run: Run) -> None:
        if self.means:
            run.log(self.row, **self.means.take())

    def state_dict(self) -> dict[str, Any]:
        return self.means.state_dict() if self.means else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.means:
            self.means.load_state_dict(state)
