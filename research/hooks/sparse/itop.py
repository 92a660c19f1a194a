"""In-time over-parameterization: explore many masks over long intervals (Liu et al. 2021, arXiv 2102.02887).

After every ``period``-th of T updates, at update t, in every layer with M active units:

    rate(t) = r_end + (r - r_end)/2 (1 + cos(pi t / T))
    remove ceil(rate M) units of smallest abs(w), ties with the last of them too; grow as many among all others

Whether the network is over-parameterized in time is told by its coverage R_s: the share of all units that were active
after at least one event (``coverage`` of the rows ``sparse``, layer by layer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from research.devices import fetch
from research.hooks.sparse.base import SparseHook
from research.hooks.sparse.events import Event, Growth, annealed_rate, refill
from research.layers.masked import Masked, largest, where
from research.parameters.signatures import Range
from research.parameters.when import When, every

if TYPE_CHECKING:
    from research.runs.run import Run


def itop_step(
    tensors: Sequence[Masked],
    rate: float,
    grads: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Event:
    """One event: ``tensors`` are changed in place, each keeps its number of active units.

    Args:
        grads: dense, shaped as the weights: units of largest abs(grad) grow; without them random ones, in exact number.
    """
    dropped = drop_up_to(tensors, [math.ceil(rate * len(tensor.active)) for tensor in tensors])
    return refill(tensors, dropped, grads, generator)


def drop_up_to(tensors: Sequence[Masked], counts: Sequence[int]) -> list[Tensor]:
    """Of each tensor the ``counts`` active units of smallest magnitude and all of equal magnitude."""
    small = []
    for tensor, count in zip(tensors, counts, strict=True):
        magnitudes = tensor.magnitudes()
        smallest = magnitudes.index_select(0, largest(-magnitudes, min(count, len(magnitudes))))
        small.append(magnitudes <= smallest.max() if len(smallest) else magnitudes < 0)
    return [t.active.index_select(0, where(flags)) for t, flags in zip(tensors, fetch(small), strict=True)]


@dataclass(eq=False)
class Itop(SparseHook):
    """Drop and grow after long intervals, where the last gradient is largest (RigL-ITOP) or at random (SET-ITOP).

    Unlike in ``rigl`` the weights are updated first, and the share that is replaced falls over the whole training. The
    published interval on CIFAR is 4000 steps of 128 images for the gradient, 1500 for random growth.
    """

    exercise = {"period": 2}
    _grads: ClassVar[list[Tensor] | None] = None  # of all weights, from the update to the event that follows it

    period: Annotated[int | When, Range(least=1), "steps between two events"] = 1500
    growth: Annotated[Growth, "what grows: where the dense gradient is largest, or anything"] = "gradient"
    rate: Annotated[float, Range(above=0, most=1), "share of a layer's units replaced, at the start"] = 0.5
    final_rate: Annotated[float, Range(least=0, most=1), "and at the end of training"] = 0.005

    def due(self, run: Run, updates: int) -> bool:
        """Whether an event follows the given number of updates; none follows the last one, which nothing could use."""
        due = self._late or updates % every(self.period, run.epochs, run.steps_per_epoch) == 0
        return bool(self.tensors) and due and updates < run.epochs * run.steps_per_epoch

    def never(self, run: Run) -> str:
        steps = run.epochs * run.steps_per_epoch
        if not self.counts or every(self.period, run.epochs, run.steps_per_epoch) < steps:
            return ""
        return f"the run has {steps} steps, and its events come after every {self.period} but not the last"

    def wants_dense_gradient(self, run: Run) -> bool:
        return self.growth == "gradient" and self.due(run, run.step + 1)

    def grads(self, run: Run) -> None:
        if not self.wants_dense_gradient(run):
            return
        self._grads = [tensor.weight.grad for tensor in self.tensors]
        for tensor, grad in zip(self.tensors, self._grads, strict=True):
            tensor.weight.grad = tensor.masked(grad)

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        grads, self._grads = self._grads, None
        if not self.due(run, run.step) or self.put_off(run, run.step - 1):
            return
        rate = annealed_rate(run.step, run.epochs * run.steps_per_epoch, self.rate, self.final_rate)
        event = itop_step(self.tensors, rate, grads, run.generator("itop"))
        self.changed(run, event)
        self.log_event(run, event.pruned_count, event.grown_count, rate=rate)
