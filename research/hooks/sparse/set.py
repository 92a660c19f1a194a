"""SET, sparse evolutionary training: Mocanu et al., Nature Communications 9 (2018), as Mostafa and Wang (2019) run it.

Every P steps each tensor loses its k = int(f M) + 1 active units of smallest magnitude and grows as many at random
positions. Against the original: one ranking by magnitude instead of one for each sign, and a period of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from research.devices import fetch
from research.hooks.sparse.base import RewiringHook
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.events import Event, set_count
from research.layers.masked import Masked
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


def set_step(
    tensors: Sequence[Masked], fraction: float, grow: Callable[[Masked, int], Tensor], leak: bool = False
) -> Event:
    """One event of SET: ``tensors`` are changed in place.

    ``grow(tensor, count)`` gives inactive units. k is at most the number of inactive units, so that every tensor keeps
    its M; with ``leak``, as in the published code, a tensor that is nearly dense loses what it has no room to regrow.
    """
    room = [tensor.units - len(tensor.active) for tensor in tensors]
    k = [set_count(tensor, fraction) for tensor in tensors]
    counts = k if leak else map(min, k, room)
    killed = fetch([drop_smallest(tensor, count) for tensor, count in zip(tensors, counts, strict=True)])
    grown = []
    for tensor, dead, free in zip(tensors, killed, room, strict=True):
        grown.append(grow(tensor, min(len(dead), free)))
        tensor.change(dead, grown[-1])
    return Event(killed, grown)


@dataclass(eq=False)
class Set(RewiringHook):
    """Kill the smallest weights of each layer and regrow as many of its others at random (SET).

    The paper's fractions kill as many as its DSR does: wrn-28-2, 0.138 0.070 0.046 0.034 0.028 at sparsity 0.9 0.8 0.7
    0.6 0.5; resnet50, 0.089 at 0.8 and 0.14 at 0.9.
    """

    exercise = {"period": "2"}

    fraction: Annotated[float, Range(least=0, below=1), "share of a layer's active units that an event kills"] = 0.1
    leak: Annotated[bool, "nearly dense layers lose what they cannot regrow, as in the published code"] = False

    def rewire(self, run: Run) -> tuple[Event, dict[str, Any]]:
        return set_step(self.tensors, self.fraction, self.grow(run), self.leak), {}
