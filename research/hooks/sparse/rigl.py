"""RigL: drop the smallest weights, grow where the gradient is largest (Evci et al. 2020, arXiv 1911.11134).

Every ``period`` steps t up to T_end, in every layer with M active units and a dense gradient G:

    f(t) = a/2 (1 + cos(pi t / T_end))          k = trunc(f(t) M)
    keep the M - k active units of largest abs(w); grow the k units of largest abs(G) among all that are not kept

A unit that was just dropped may grow again at once; then nothing happened to it. New units start at 0 with momentum 0.
"""

# no postponed annotations: a dataclass's parameters are read in the modules of its subclasses too

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from research.arguments import Range
from research.hooks.sparse.base import Event, SparseHook
from research.hooks.sparse.criteria import drop_smallest
from research.layers.masked import Masked

if TYPE_CHECKING:
    from research.run import Run

Growth = Literal["gradient", "random"]
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


def rigl_step(tensor: Masked, grad: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The units that an event kills and those that it grows, int64 each, equally many and at most ``k``.

    Args:
        grad: dense, dL/dW at the masked weights, shaped as the weight.
        k: units dropped and grown; those that are both appear in neither result.
    """
    return exchange(tensor, drop_smallest(tensor, k), grad)


def exchange(
    tensor: Masked, dropped: Tensor, signal: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Killed and grown units, when the active ``dropped`` go and as many come, chosen among all that are not kept.

    The units of largest abs(``signal``), shaped as the weight, come; without it random ones. A unit that was dropped
    and comes again is neither killed nor grown.
    """
    if signal is not None:
        chosen = grow_strongest(tensor, dropped, len(dropped), signal)
    else:
        candidates = (~kept(tensor, dropped)).nonzero()[:, 0]
        order = torch.randperm(len(candidates), generator=generator)
        chosen = candidates[order[: len(dropped)].to(candidates.device)]
    return settle(dropped, chosen)


def grow_strongest(tensor: Masked, dropped: Tensor, count: int, signal: Tensor) -> Tensor:
    """The ``count`` units of largest abs(``signal``), shaped as the weight, among the inactive and the ``dropped``."""
    strength = unit_magnitudes(tensor, signal).masked_fill_(kept(tensor, dropped), -torch.inf)
    return strength.topk(count, sorted=False).indices


def settle(dropped: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Killed and grown, when those of the ``dropped`` units that were ``chosen`` again just stay."""
    return dropped[~torch.isin(dropped, chosen)], chosen[~torch.isin(chosen, dropped)]


def kept(tensor: Masked, dropped: Tensor) -> Tensor:
    """Which units are active and not ``dropped``: (N,) bool."""
    mask = tensor.flat(tensor.mask).clone()
    mask[dropped] = False
    return mask


@torch.no_grad()
def unit_magnitudes(tensor: Masked, signal: Tensor) -> Tensor:
    """The mean of abs(``signal``), shaped as the weight, over the weights of each of the N units: (N,)."""
    size = torch.abs(signal, out=torch.empty_like(tensor.weight))  # laid out as the weight, which numbers the units
    sliced = tuple(range(tensor.mask.ndim, size.ndim))
    return tensor.flat(size.mean(sliced).contiguous() if sliced else size)


def momentum_of(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor | None:
    """The optimizer's running sum (SGD) or mean (AdamW) of the gradients of ``weight``; none before its first step."""
    state = optimizer.state.get(weight, {})
    return state.get("momentum_buffer", state.get("exp_avg"))


@dataclass(eq=False)
class Rigl(SparseHook):
    """Drop the smallest weights and grow those with the largest gradient, a layer's count unchanged.

    An event takes the place of its step's update of the sparse weights; everything else is updated as ever. Gradients
    of inactive weights are computed by every backward pass anyway and looked at in these steps only. With
    ``growth=random`` it is SET under the same schedule: the update comes first, then random units grow.
    """

    exercise = {"period": 2}

    period: Annotated[int, Range(least=1), "steps between two events"] = 100
    fraction: Annotated[float, Range(above=0, most=1), "a, the share of a layer's units dropped at first"] = 0.3
    anneal: Annotated[Anneal, "how that share falls until the end: a half cosine, not, or (1 - t/end)^power"] = "cosine"
    power: Annotated[float, Range(above=0), "of anneal=power"] = 3.0
    end: Annotated[float, Range(above=0), "last step with events; up to 1 it is a share of all steps"] = 0.75
    growth: Annotated[Growth, "what grows: where the dense gradient is largest, or anything"] = "gradient"
    grown_momentum: Annotated[float, Range(least=0), "momentum of a new unit, as a multiple of its gradient"] = 0.0

    def due(self, run: "Run", step: int) -> bool:
        """Whether 0-based step ``step`` has an event."""
        return bool(self.tensors) and step > 0 and step % self.period == 0 and step <= self.last_step(run)

    def last_step(self, run: "Run") -> float:
        return self.end * run.epochs * run.steps_per_epoch if self.end <= 1 else self.end

    def wants_dense_gradient(self, run: "Run") -> bool:
        return self.growth == "gradient" and self.due(run, run.step)

    def grads(self, run: "Run") -> None:
        if not self.wants_dense_gradient(run):
            return
        grads = [tensor.weight.grad for tensor in self.tensors]
        event = self.rewire(run, run.step, lambda tensor, k: rigl_step(tensor, tensor.weight.grad, k))
        for tensor, grown, grad in zip(self.tensors, event.grown, grads, strict=True):
            momentum = momentum_of(run.optimizer, tensor.weight)
            if self.grown_momentum and momentum is not None:
                tensor.copy(momentum, grown, self.grown_momentum * grad)
            tensor.weight.grad = None  # so the optimizer leaves weight and momentum alone in this step

    def step_end(self, run: "Run") -> None:
        super().step_end(run)
        if self.growth == "random" and self.due(run, run.step - 1):
            generator = run.generator("rigl")
            self.rewire(
                run, run.step - 1, lambda tensor, k: exchange(tensor, drop_smallest(tensor, k), generator=generator)
            )

    def rewire(self, run: "Run", step: int, choose: Callable[[Masked, int], tuple[Tensor, Tensor]]) -> Event:
        """The event of ``step``: in every tensor kill and grow what ``choose`` finds for k units."""
        fraction = drop_fraction(step, self.last_step(run), self.fraction, self.anneal, self.power)
        found = [choose(tensor, drop_count(len(tensor.active), fraction)) for tensor in self.tensors]
        for tensor, (killed, grown) in zip(self.tensors, found, strict=True):
            tensor.change(killed, grown)
        event = Event([killed for killed, _ in found], [grown for _, grown in found])
        self.changed(run, event, fraction=fraction)
        return event
