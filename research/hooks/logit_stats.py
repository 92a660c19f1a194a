"""Logit statistics: size and spread of the logits, in training and in validation.

Under PowerGrad with alpha < 1 logits grow about 1 / alpha as large; these are the numbers that show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from research.distributed import all_reduce
from research.hooks.base import Hook

if TYPE_CHECKING:
    from research.runs.run import Run


class LogitStatistics(NamedTuple):
    """Means over the rows of logits; scalar float32 tensors (float64 of float64 logits)."""

    norm: Tensor  # of the row's Euclidean norm
    mean: Tensor  # of |the row's mean|
    max: Tensor  # of |the row's largest logit|, so that a row of negative ones counts by its magnitude
    var: Tensor  # of the row's unbiased variance over classes; 0 of a single class


def logit_statistics(logits: Tensor) -> LogitStatistics:
    """Norm, mean, max and var of ``logits`` (N, C) of any floating dtype; no host synchronisation."""
    z = logits.detach()
    z = z if z.dtype == torch.float64 else z.float()
    variances = z.var(1) if z.shape[1] > 1 else z.new_zeros(len(z))
    rows = (torch.linalg.vector_norm(z, dim=1), z.mean(1).abs(), z.amax(1).abs(), variances)
    return LogitStatistics(*(row.mean() for row in rows))


class LogitStats(Hook):
    """Log norm, mean, max and variance of the logits, means over all samples; training is unchanged.

    After every epoch a row ``train_logits``, of all its batches as they were trained on, and a row ``val_logits``.
    """

    neutral = {}  # it only measures

    def setup(self, run: Run) -> None:
        # sums over samples, and their number: of the epoch and equal on all ranks; of this rank since the last row
        self.train, self.recent, self.val = (torch.zeros(5, dtype=torch.float64, device=run.device) for _ in range(3))

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        add(self.recent, run.logits)
        return loss

    def step_end(self, run: Run) -> None:
        if run.row_due:  # state must be equal on all ranks when they take a checkpoint
            self.train += all_reduce(self.recent)
            self.recent.zero_()

    def evaluated(self, run: Run, logits: Tensor, targets: Tensor) -> None:
        add(self.val, logits)

    def epoch_end(self, run: Run) -> None:
        for kind, sums in (("train_logits", self.train), ("val_logits", all_reduce(self.val))):
            run.log(kind, **means(sums))
            sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"train": self.train, "recent": self.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.train.copy_(state["train"])
        self.recent.copy_(state["recent"])


def add(sums: Tensor, logits: Tensor) -> None:
    """Add the statistics of ``logits`` (N, C) to ``sums`` (4 sums over samples, number of samples) float64."""
    sums[:4] += len(logits) * torch.stack(logit_statistics(logits))
    sums[4] += len(logits)


def means(sums: Tensor) -> dict[str, float]:
    """The row of metrics from the ``sums`` of :func:`add`."""
    *totals, images = sums.tolist()
    named = zip(LogitStatistics._fields, totals, strict=True)
    return {name: total / images for name, total in named} | {"images": int(images)}
