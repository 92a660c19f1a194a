"""DSR, dynamic sparse reparameterization: Mostafa and Wang, "Parameter efficient training of deep convolutional neural
networks by dynamic sparse reparameterization" (2019).

Every P steps, with H one threshold for the whole network and R_l the units of layer l that survive:

    kill the units of magnitude < H, K_l in layer l;
    grow G_l = R_l / sum R * sum K units in layer l, at random positions that were inactive, with weight 0;
    halve H if more than (1 + delta) K units died, double it if fewer than (1 - delta) K did.

The published code rounds G_l such that now and then a unit too many grows, and never ends where a layer is nearly full
(:func:`allocate_legacy` gives up there). Here the number of units is conserved exactly wherever there is room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor

from research.devices import fetch, send
from research.errors import UsageError
from research.hooks.base import Reasons
from research.hooks.sparse.base import RewiringHook
from research.hooks.sparse.criteria import drop_magnitude_threshold, drop_smallest, drop_smallest_of_all
from research.hooks.sparse.events import Event, set_count
from research.layers.masked import Masked
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run

Grow = Callable[[Masked, int], Tensor]  # (tensor, count) -> units


def dsr_step(
    tensors: Sequence[Masked], threshold: float, k: int, grow: Grow, tolerance: float = 0.1
) -> tuple[Event, float]:
    """One event of DSR: ``tensors`` are changed in place; what was done, and H for the next event.

    Args:
        threshold: H.
        k: units to kill, K.
        grow: (tensor, count) -> inactive units of it, such as ``partial(grow_random, generator=...)``.
        tolerance: delta.
    """
    killed = drop_magnitude_threshold(tensors, threshold)
    event = regrow(tensors, killed, grow, allocate)
    return event, adapt_threshold(threshold, event.pruned_count, k, tolerance)


def adapt_threshold(threshold: float, pruned: int, k: int, tolerance: float = 0.1) -> float:
    """H halved, doubled or kept, so that the next event kills about ``k``."""
    if pruned > (1 + tolerance) * k:
        return threshold / 2
    return threshold * 2 if pruned < (1 - tolerance) * k else threshold


def regrow(
    tensors: Sequence[Masked],
    killed: Sequence[Tensor],
    grow: Grow,
    allocate: Callable[..., list[int]] | None,
    values: Callable[[Masked, int], Tensor | None] = lambda tensor, count: None,
    weighted: bool = False,
) -> Event:
    """Grow as many units as are ``killed`` and change the tensors in place.

    Args:
        allocate: (survivors, total, capacity) -> units that each tensor grows, as :func:`allocate`, which also takes
            the sizes of units that ``weighted`` needs; ``None``: as many as it lost.
        values: (tensor, count) -> weights of the new units; none = 0.
        weighted: count weights instead of units in the share of a tensor and in the total.
    """
    lost = [len(units) for units in killed]
    if allocate is None:
        counts = lost
    else:
        survivors = [len(tensor.active) - gone for tensor, gone in zip(tensors, lost, strict=True)]
        capacity = [tensor.units - len(tensor.active) for tensor in tensors]
        if weighted:
            sizes = [tensor.unit_size for tensor in tensors]
            counts = allocate(survivors, count_weights(tensors, killed), capacity, sizes)
        else:
            counts = allocate(survivors, sum(lost), capacity)
    grown = [grow(tensor, count) for tensor, count in zip(tensors, counts, strict=True)]
    for tensor, dead, born in zip(tensors, killed, grown, strict=True):
        tensor.change(dead, born, values(tensor, len(born)))
    return Event(killed, grown)


def count_weights(tensors: Sequence[Masked], units: Sequence[Tensor]) -> int:
    """The weights in ``units`` of each tensor."""
    return sum(len(own) * tensor.unit_size for tensor, own in zip(tensors, units, strict=True))


def allocate(
    survivors: Sequence[int], total: int, capacity: Sequence[int], sizes: Sequence[int] | None = None
) -> list[int]:
    """Units that each layer grows: in proportion to its survivors, rounded by largest remainder, within its capacity.

    What a full layer cannot take goes to the others in the same proportion. The sum is ``total``, or all capacity.
    With ``sizes``, the weights of one unit, ``total`` and the proportions are of weights; up to the smallest unit that
    still has room may then be left over.
    """
    sizes = sizes or [1] * len(survivors)
    grown = [0] * len(survivors)
    left = min(total, sum(room * size for room, size in zip(capacity, sizes, strict=True)))
    layers = [layer for layer, room in enumerate(capacity) if room]
    while True:
        share = {layer: survivors[layer] * sizes[layer] for layer in layers}
        if not any(share.values()):
            share = {layer: capacity[layer] * sizes[layer] for layer in layers}
        whole = sum(share.values())
        quota = {layer: divmod(left * share[layer], whole * sizes[layer]) for layer in layers}  # units, remainder
        full = [layer for layer in layers if quota[layer][0] >= capacity[layer]]
        if not full:
            break
        for layer in full:
            grown[layer] = capacity[layer]
            left -= capacity[layer] * sizes[layer]
            layers.remove(layer)
    for layer in layers:
        grown[layer] = quota[layer][0]
        left -= grown[layer] * sizes[layer]
    layers.sort(key=lambda layer: -quota[layer][1] / sizes[layer])
    while fitting := [layer for layer in layers if sizes[layer] <= left and grown[layer] < capacity[layer]]:
        for layer in fitting:
            if sizes[layer] <= left:
                grown[layer] += 1
                left -= sizes[layer]
    return grown


def allocate_legacy(
    survivors: Sequence[int], total: int, capacity: Sequence[int], randint: Callable[[int], int]
) -> list[tuple[list[int], list[int]]]:
    """The published rounding: (requested, grown) units of each layer, round after round.

    What rounding misses goes to one layer drawn by ``randint(layers)``. May grow more than ``total``; where the
    published code would loop for ever, the rounds end with less.
    """
    shares = [survivor / max(1, sum(survivors)) for survivor in survivors]
    room, rounds = list(capacity), []
    left = total
    while left > 0 and any(room):
        requested = [round(share * left) for share in shares]
        missed = left - sum(requested)
        if missed:
            lucky = randint(len(shares))
            requested[lucky] = max(0, requested[lucky] + missed)
        grown = [min(wanted, free) for wanted, free in zip(requested, room, strict=True)]
        rounds.append((requested, grown))
        if not any(grown) and missed <= 0:
            break
        room = [free - new for free, new in zip(room, grown, strict=True)]
        left -= sum(grown)
    return rounds


def big_new_weights(tensor: Masked, count: int, generator: torch.Generator) -> Tensor:
    """Weights for ``count`` new units: normal, of variance 2 / (out kh kw) in kernels and 1 / fan_in in matrices.

    In what stands for a layer otherwise (banks, cores of decompositions) the variance is that of its active weights.
    """
    if tensor.weight.ndim in (2, 4):
        out, fan_in, *kernel = tensor.weight.shape
        std = math.sqrt(2 / (out * math.prod(kernel)) if kernel else 1 / fan_in)
    else:
        std = tensor.values().square().mean().sqrt() if len(tensor.active) else 0.0
    drawn = torch.randn(count, *tensor.weight.shape[tensor.mask.ndim :], generator=generator)
    return (std * send(drawn, tensor.weight.device)).to(tensor.weight.dtype)


@dataclass(eq=False)
class Dsr(RewiringHook):
    """Kill weights below one adaptive threshold and regrow as many, where layers keep most of theirs (DSR).

    The paper's settings: wrn-28-2, k=20000; resnet50, k=400000 and period "0:1000 25:2000 50:4000 75:8000"; mnist_mlp,
    k=600, l1=1e-4 without weight decay. Rows ``sparse_event`` follow the threshold, rows ``sparse`` the layers.
    """

    exercise = {"period": "2", "k": 200, "threshold": 0.02}

    k: Annotated[int, Range(least=1), "units to kill in an event; weights with weighted=true"] = 600
    threshold: Annotated[float, Range(above=0), "magnitude below which units die, of the first event"] = 1e-3
    tolerance: Annotated[float, Range(least=0, below=1), "deviation from k that leaves the threshold alone"] = 0.1
    prune: Annotated[
        Literal["threshold", "exact", "fraction"],
        "what dies: below the threshold, the k smallest of the network, or a fraction of each layer",
    ] = "threshold"
    fraction: Annotated[float, Range(least=0, below=1), "prune=fraction: share of a layer's active units"] = 0.1
    reallocate: Annotated[bool, "grow where the survivors are; false = each layer regrows what it lost"] = True
    weighted: Annotated[bool, "conserve weights instead of units, where units differ in size"] = False
    big_new_weights: Annotated[bool, "new units start from normal draws instead of 0"] = False
    rounding: Annotated[Literal["exact", "legacy"], "of the reallocated counts; legacy may grow a few too many"] = (
        "exact"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighted and self.rounding == "legacy":
            raise UsageError("weighted=true: the legacy rounding counts units; give rounding=exact")

    def idle(self) -> Reasons:
        reasons = dict(super().idle())
        if self.prune != "threshold":
            reasons |= dict.fromkeys(("threshold", "tolerance"), f"prune={self.prune} has no threshold")
        if self.prune != "fraction":
            reasons["fraction"] = f"it belongs to prune=fraction; this is {self.prune}"
        else:
            reasons["k"] = "prune=fraction says how many units die"
        if not self.reallocate:
            reasons["rounding"] = "each layer regrows what it lost, with reallocate=false"
        if self.granularity == 4:
            reasons["weighted"] = "every unit is one weight, with granularity=4"
        elif not self.reallocate and self.prune != "threshold":
            reasons["weighted"] = "nothing is counted over layers"
        return reasons

    def idle_in(self, run: Run) -> Reasons:
        reasons = dict(super().idle_in(run))
        if "granularity" in reasons:
            reasons["weighted"] = reasons["granularity"]
        return reasons

    def rewire(self, run: Run) -> tuple[Event, dict[str, Any]]:
        killed = self.killed()
        event = regrow(
            self.tensors,
            killed,
            self.grow(run),
            self._allocation(run),
            self._new_weights(run),
            self.weighted,
        )
        if self.prune != "threshold":
            return event, {}
        used, pruned = self.threshold, count_weights(self.tensors, killed) if self.weighted else event.pruned_count
        self.threshold = adapt_threshold(used, pruned, self.k, self.tolerance)
        return event, {"threshold": used, "next_threshold": self.threshold}

    def killed(self) -> list[Tensor]:
        """The units that the next event kills."""
        if self.prune == "exact":
            return drop_smallest_of_all(self.tensors, self.k)
        if self.prune == "fraction":
            return fetch([drop_smallest(tensor, set_count(tensor, self.fraction)) for tensor in self.tensors])
        return drop_magnitude_threshold(self.tensors, self.threshold)

    def _allocation(self, run: Run) -> Callable[..., list[int]] | None:
        if not self.reallocate:
            return None
        if self.rounding == "exact":
            return allocate
        generator = run.generator("rounding")

        def draw(layers: int) -> int:
            return int(torch.randint(layers, (), generator=generator))

        def legacy(survivors: list[int], total: int, capacity: list[int]) -> list[int]:
            rounds = allocate_legacy(survivors, total, capacity, draw)
            return [sum(grown[layer] for _, grown in rounds) for layer in range(len(survivors))]

        return legacy

    def _new_weights(self, run: Run) -> Callable[[Masked, int], Tensor | None]:
        if not self.big_new_weights:
            return lambda tensor, count: None
        return lambda tensor, count: big_new_weights(tensor, count, run.generator("new weights", tensor.name))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.threshold = state["threshold"]
