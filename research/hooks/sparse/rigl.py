"""RigL: drop the smallest weights, grow where the gradient is largest (Evci et al. 2020, arXiv 1911.11134).

Every ``period`` steps t up to T_end, in every layer with M active units and a dense gradient G:

    f(t) = a/2 (1 + cos(pi t / T_end))          k = trunc(f(t) M)
    keep the M - k active units of largest abs(w); grow the k units of largest abs(G) among all that are not kept

A unit that was just dropped may grow again at once; then nothing happened to it. New units start at 0 with momentum 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from research.devices import send
from research.hooks.base import Reasons
from research.hooks.sparse.base import SparseHook
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.events import Event, Growth, momentum_of, refill
from research.layers.masked import Masked
from research.parameters.signatures import Range
from research.parameters.when import When, every, in_steps

if TYPE_CHECKING:
    from research.runs.run import Run

Anneal = Literal["cosine", "constant", "power"]


def drop_fraction(t: float, end: float, a: float = 0.3, anneal: Anneal = "cosine", power: float = 3.0) -> float:
    """f(t), the share of its active units that a layer drops at step ``t`` of ``end``; 0 afterwards.

    ``cosine`` a/2 (1 + cos(pi t/end)), ``constant`` a, ``power`` a (1 - t/end)^power.
    """
    if t > end:
        return 0.0
    if anneal == "cosine":
        return a / 2 * (1 + math.cos(math.pi * t / end))
    return a if anneal == "constant" else a * (1 - t / end) ** power


def drop_count(active: int, fraction: float) -> int:
    """k = trunc(M f) in float32, as the published code computes it."""
    return int(np.float32(active) * np.float32(fraction))


def rigl_step(
    tensors: Sequence[Masked],
    fraction: float,
    grads: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Event:
    """One event: ``tensors`` are changed in place, each keeps its number of active units.

    Args:
        fraction: f(t).
        grads: dense, dL/dW at the masked weights, shaped as the weights; without them random units grow, as in SET.
    """
    dropped = [drop_smallest(tensor, drop_count(len(tensor.active), fraction)) for tensor in tensors]
    return refill(tensors, dropped, grads, generator)


@torch.no_grad()
def set_momentum(tensor: Masked, momentum: Tensor, units: Tensor, values: Tensor) -> None:
    """Set ``momentum`` to ``values``, both shaped as the weight, at ``units``."""
    chosen = torch.zeros_like(tensor.mask)
    tensor.flat(chosen).index_fill_(0, send(units, chosen.device), True)
    wide = chosen.reshape(*chosen.shape, *[1] * (momentum.ndim - chosen.ndim))
    momentum.copy_(torch.where(wide, values, momentum))


@dataclass(eq=False)
class Rigl(SparseHook):
    """Drop the smallest weights and grow those with the largest gradient, a layer's count unchanged.

    An event takes the place of its step's update of the sparse weights; everything else is updated as ever. Gradients
    of inactive weights are computed by every backward pass anyway and looked at in these steps only. With
    ``growth=random`` it is SET under the same schedule: the update comes first, then random units grow.
    """

    exercise = {"period": 2}

    period: Annotated[int | When, Range(least=1), "steps between two events"] = 100
    fraction: Annotated[float, Range(above=0, most=1), "a, the share of a layer's units dropped at first"] = 0.3
    anneal: Annotated[Anneal, "how that share falls until the end: a half cosine, not, or (1 - t/end)^power"] = "cosine"
    power: Annotated[float, Range(above=0), "of anneal=power"] = 3.0
    end: Annotated[float | When, Range(above=0), "last step with events; up to 1 it is a share of all steps"] = 0.75
    growth: Annotated[Growth, "what grows: where the dense gradient is largest, or anything"] = "gradient"
    grown_momentum: Annotated[float, Range(least=0), "momentum of a new unit, as a multiple of its gradient"] = 0.0

    def due(self, run: Run, step: int) -> bool:
        """Whether 0-based step ``step`` has an event."""
        due = self._late or step % every(self.period, run.epochs, run.steps_per_epoch) == 0
        return bool(self.tensors) and step > 0 and due and step <= self.last_step(run)

    def idle(self) -> Reasons:
        reasons = dict(super().idle())
        if self.anneal != "power":
            reasons["power"] = f"it belongs to anneal=power; this is {self.anneal}"
        if self.growth == "random":
            reasons["grown_momentum"] = "growth=random looks at no gradient"
        return reasons

    def idle_in(self, run: Run) -> Reasons:
        reasons = dict(super().idle_in(run))
        if "momentum" in reasons:
            reasons["grown_momentum"] = reasons["momentum"]
        return reasons

    def never(self, run: Run) -> str:
        last = min(self.last_step(run), run.epochs * run.steps_per_epoch - 1)
        if not self.counts or every(self.period, run.epochs, run.steps_per_epoch) <= last:
            return ""
        return f"with period={self.period} and end={self.end} its first event comes after its last step, {int(last)}"

    def last_step(self, run: Run) -> float:
        unit = "it" if not isinstance(self.end, str) and self.end > 1 else "share"
        return in_steps(self.end, unit, run.epochs, run.steps_per_epoch)

    def wants_dense_gradient(self, run: Run) -> bool:
        return self.growth == "gradient" and self.due(run, run.step)

    def grads(self, run: Run) -> None:
        if not self.wants_dense_gradient(run):
            return
        grads = [tensor.weight.grad for tensor in self.tensors]
        if self.put_off(run, run.step):
            super().grads(run)
            return
        event = self.rewire(run, run.step, grads)
        for tensor, grown, grad in zip(self.tensors, event.grown, grads, strict=True):
            momentum = momentum_of(run.optimizer, tensor.weight)
            if self.grown_momentum and momentum is not None:
                set_momentum(tensor, momentum, grown, self.grown_momentum * grad)
            tensor.weight.grad = None  # the optimizer leaves weight and momentum alone in this step

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        step = run.step - 1
        if self.growth == "random" and self.due(run, step) and not self.put_off(run, step):
            self.rewire(run, step)

    def rewire(self, run: Run, step: int, grads: list[Tensor] | None = None) -> Event:
        """The event of ``step``."""
        fraction = drop_fraction(step, self.last_step(run), self.fraction, self.anneal, self.power)
        event = rigl_step(self.tensors, fraction, grads, run.generator("rigl"))
        self.changed(run, event)
        self.log_event(run, event.pruned_count, event.grown_count, fraction=fraction)
        return event
