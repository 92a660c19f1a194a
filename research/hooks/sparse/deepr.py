"""DeepR, deep rewiring: Bellec et al., "Deep rewiring: training very sparse deep networks" (2018), in the form that
Mostafa and Wang (2019) compare with.

At every step the gradient of active weights gets noise of standard deviation sqrt(2 eta T), T falling over training;
after the update, weights whose sign has changed die, and as many grow at random with weight 0. The sign that counts is
the one after the update before: a new weight gets its sign from its first update. In the original the noise is added to
the weight, and signs are fixed.

The published code remembers signs from before the weights are drawn a last time, and kills half of the network in the
first steps. Here the signs are those of the active weights right before each update, which no state has to remember:
between two updates only deaths and growth change weights, and a new one has sign 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from research.devices import send
from research.errors import UsageError
from research.hooks.base import Hook, Reasons
from research.hooks.sparse.base import SparseHook
from research.hooks.sparse.criteria import drop_sign_flips
from research.hooks.sparse.events import Event
from research.layers.masked import Masked, active_weights
from research.parameters.piecewise import Piecewise
from research.parameters.signatures import Range
from research.parameters.when import When, in_epochs

if TYPE_CHECKING:
    from research.runs.run import Run


def deepr_noise(tensors: Sequence[Masked], eta: float, temperature: float, generator: torch.Generator) -> None:
    """Add normal noise of standard deviation sqrt(2 eta T) to the gradients of active weights."""
    counts = [len(tensor.active) for tensor in tensors]
    noise = torch.empty(sum(counts)).normal_(0, math.sqrt(2 * eta * temperature), generator=generator)
    noise = send(noise.to(tensors[0].weight.dtype), tensors[0].weight.device)
    for tensor, part in zip(tensors, noise.split(counts), strict=True):
        tensor.add(tensor.weight.grad, part)


def deepr_step(tensors: Sequence[Masked], before: Tensor, grow: Callable[[Masked, int], Tensor]) -> Event:
    """Right after an update: kill active weights whose sign is opposite to the one before it, grow as many.

    ``tensors`` are changed in place; ``before`` is what :func:`~research.layers.masked.active_weights` gave before the
    update; ``grow(tensor, count)`` gives inactive units. Fully dense tensors are left alone.
    """
    killed, grown = drop_sign_flips(tensors, before), []
    for layer, tensor in enumerate(tensors):
        if len(tensor.active) == tensor.units:
            killed[layer] = tensor.active[:0]
        grown.append(killed[layer])
        if count := len(killed[layer]):
            grown[-1] = grow(tensor, count)
            tensor.change(killed[layer], grown[-1])
    return Event(killed, grown)


@dataclass(eq=False)
class DeepR(SparseHook):
    """Noise on the gradient; weights that change sign die at once and others grow at random (DeepR).

    Meant for l1=1e-5 and no weight decay. A row ``sparse_event`` sums up each epoch.
    """

    exercise = {"sparsity": 0.5, "l1": 1e-4, "temperature": "0.1"}

    eta: Annotated[float, Range(least=0), "step size eta in the noise's standard deviation sqrt(2 eta T)"] = 0.01
    temperature: Annotated[Piecewise, "T by epoch, such as '0:1e-5 25:1e-8'"] = Piecewise(
        "0:1e-5 25:1e-8 80:1e-12 140:1e-15"
    )
    stop_epoch: Annotated[int | When, Range(least=0), "first epoch without noise and changes"] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.granularity != 4:
            raise UsageError(f"granularity={self.granularity}: signs are of single weights; give 4")
        if not self.temperature:
            raise UsageError("temperature='': expected epoch:value pairs, such as '0:1e-5 25:1e-8'")
        self._pruned = 0  # in this epoch

    def idle(self) -> Reasons:
        reasons = dict(super().idle())
        if not self.eta:
            reasons["temperature"] = "there is no noise, with eta=0"
        if not any(value for _, value in self.temperature.pairs):
            reasons["eta"] = "there is no noise, with temperature=0"
        return reasons

    def never(self, run: Run) -> str:
        return "stop_epoch=0 ends it before the first step" if self.counts and not self.stop_epoch else ""

    def out_of_order(self, later: Mapping[str, Hook]) -> str:
        if "gram" in later and self.eta:
            return "gram, listed after it, multiplies its noise too"
        return super().out_of_order(later)

    def is_active(self, run: Run) -> bool:
        """Whether this epoch has noise and changes: the one in which the stop falls still has."""
        return bool(self.tensors) and run.epoch < in_epochs(self.stop_epoch, "ep", run.epochs, run.steps_per_epoch)

    def grads(self, run: Run) -> None:
        super().grads(run)
        if not self.is_active(run):
            return
        self._before = active_weights(self.tensors)
        sparse = [tensor for tensor in self.tensors if len(tensor.active) < tensor.units]
        if sparse and self.eta * self.temperature.at(run.epoch):
            deepr_noise(sparse, self.eta, self.temperature.at(run.epoch), run.generator("noise"))

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        if self.is_active(run):
            event = deepr_step(self.tensors, self._before, self.grow(run))
            self.changed(run, event)
            self._pruned += event.pruned_count

    def epoch_end(self, run: Run) -> None:
        if self.is_active(run):
            self.log_event(run, self._pruned, self._pruned, temperature=self.temperature.at(run.epoch))
        self._pruned = 0
        super().epoch_end(run)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"pruned": self._pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._pruned = state["pruned"]
