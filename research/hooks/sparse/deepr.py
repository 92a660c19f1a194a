"""DeepR, deep rewiring: Bellec et al., "Deep rewiring: training very sparse deep networks" (2018), in the form that
Mostafa and Wang (2019) compare with.

At every step the gradient of active weights gets noise of standard deviation sqrt(2 eta T), T falling over training;
after the update, weights whose sign has changed die, and as many grow at random with weight 0. The sign that counts is
the one after the update before: a new weight gets its sign from its first update. In the original the noise is added to
the weight, and signs are fixed.

The published code remembers signs from before the weights are drawn a last time, and kills half of the network in the
first steps. Here the memory starts from the weights that training starts from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from research.arguments import Range
from research.errors import UsageError
from research.hooks.sparse.base import Event, SparseHook
from research.layers.masked import Masked, where
from research.tables import Table

if TYPE_CHECKING:
    from research.run import Run


@torch.no_grad()
def deepr_noise(tensor: Masked, eta: float, temperature: float, generator: torch.Generator) -> None:
    """Add normal noise of standard deviation sqrt(2 eta T) to the gradient of the active weights."""
    noise = torch.randn(len(tensor.active), generator=generator).mul_(math.sqrt(2 * eta * temperature))
    tensor.flat(tensor.weight.grad).scatter_add_(0, tensor.active, noise.to(tensor.weight.grad))


@torch.no_grad()
def sign_memory(tensor: Masked) -> Tensor:
    """The sign of every weight (N,), int8, 0 for inactive ones, as units are numbered."""
    return tensor.flat(tensor.weight).sign().to(torch.int8)


@torch.no_grad()
def deepr_step(tensors: Sequence[Masked], memory: Sequence[Tensor], grow: Callable[[Masked, int], Tensor]) -> Event:
    """Right after an update: kill active weights whose sign is opposite to the remembered one, grow as many.

    ``tensors`` and ``memory`` (a :func:`sign_memory` for each) are changed in place; ``grow(tensor, count)`` gives
    inactive units. Fully dense tensors are left alone.
    """
    flips = []
    for tensor, remembered in zip(tensors, memory, strict=True):
        signs = tensor.values().sign_().to(torch.int8)
        flips.append(remembered.index_select(0, tensor.active).mul_(signs) < 0)
        remembered.scatter_(0, tensor.active, signs)
    deaths = torch.stack([flipped.sum() for flipped in flips]).tolist()
    killed, grown = [], []
    for tensor, remembered, flipped, count in zip(tensors, memory, flips, deaths, strict=True):
        if count == 0 or len(tensor.active) == tensor.units:
            killed.append(tensor.active[:0])
            grown.append(tensor.active[:0])
            continue
        killed.append(tensor.active[where(flipped)])
        grown.append(grow(tensor, count))
        tensor.change(killed[-1], grown[-1])
        remembered[killed[-1]] = 0
    return Event(killed, grown)


@dataclass(eq=False)
class DeepR(SparseHook):
    """Noise on the gradient; weights that change sign die at once and others grow at random (DeepR).

    Meant for l1=1e-5 and no weight decay. A row ``sparse_event`` sums up each epoch.
    """

    exercise = {"sparsity": 0.5, "l1": 1e-4, "temperature": "0.1"}

    eta: Annotated[float, Range(least=0), "step size eta in the noise's standard deviation sqrt(2 eta T)"] = 0.01
    temperature: Annotated[Table, "T by epoch, such as '0:1e-5 25:1e-8'"] = Table("0:1e-5 25:1e-8 80:1e-12 140:1e-15")
    stop_epoch: Annotated[int, Range(least=0), "first epoch without noise and changes"] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.granularity != 4:
            raise UsageError(f"granularity={self.granularity}: signs are of single weights; give 4")
        if not self.temperature:
            raise UsageError("temperature='': expected epoch:value pairs, such as '0:1e-5 25:1e-8'")
        self._pruned = 0  # in this epoch

    @cached_property
    def memory(self) -> dict[str, Tensor]:
        """The remembered signs by tensor name."""
        return {tensor.name: sign_memory(tensor) for tensor in self.tensors}

    def active_in(self, epoch: int) -> bool:
        return bool(self.tensors) and epoch < self.stop_epoch

    def grads(self, run: "Run") -> None:
        super().grads(run)
        if not self.active_in(run.epoch):
            return
        temperature, _ = self.temperature.at(run.epoch), self.memory  # the signs that this update starts from
        for tensor in self.tensors:
            if self.eta * temperature and len(tensor.active) < tensor.units:
                deepr_noise(tensor, self.eta, temperature, run.generator("noise", tensor.name))

    def step_end(self, run: "Run") -> None:
        super().step_end(run)
        if self.active_in(run.epoch):
            event = deepr_step(self.tensors, list(self.memory.values()), self.grow(run))
            self.changed(run, event)
            self._pruned += event.pruned_count

    def epoch_end(self, run: "Run") -> None:
        if self.active_in(run.epoch):
            self.log_event(run, self._pruned, self._pruned, temperature=self.temperature.at(run.epoch))
        self._pruned = 0
        super().epoch_end(run)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memory": dict(self.memory), "pruned": self._pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memory, self._pruned = dict(state["memory"]), state["pruned"]
