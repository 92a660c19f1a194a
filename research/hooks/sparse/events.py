"""Changes of masks: what one is, when it is due, and the steps that several methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from research.devices import fetch
from research.hooks.sparse.criteria import grow_largest, grow_random
from research.layers.masked import Masked

Growth = Literal["gradient", "random"]


@dataclass
class Event:
    """What one change of the masks did: the units killed and grown in each tensor, lists of the host."""

    killed: Sequence[Tensor]
    grown: Sequence[Tensor]

    @property
    def pruned_count(self) -> int:
        return sum(map(len, self.killed))

    @property
    def grown_count(self) -> int:
        return sum(map(len, self.grown))


def event_due(step: int, period: int) -> bool:
    """Whether an event follows the update of 0-based optimizer step ``step``: the first after period + 1 updates."""
    return step > 0 and step % period == 0


def set_count(tensor: Masked, fraction: float) -> int:
    """k = int(f M) + 1."""
    return int(fraction * len(tensor.active)) + 1


def annealed_rate(t: int, total: int, initial: float = 0.5, final: float = 0.005) -> float:
    """rate(t): from ``initial`` at t = 0 to ``final`` at t = ``total`` along half a cosine."""
    return final + (initial - final) / 2 * (1 + math.cos(math.pi * t / total))


def refill(
    tensors: Sequence[Masked],
    dropped: Sequence[Tensor],
    signals: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Event:
    """Replace the ``dropped`` units of each tensor by as many others: strongest in ``signals``, or random ones.

    Candidates are the inactive units and the ``dropped`` themselves.
    """
    if signals:
        return move(tensors, dropped, [len(units) for units in dropped], signals)
    dropped, chosen = fetch(dropped), []
    for tensor, units in zip(tensors, dropped, strict=True):
        with tensor.without(units):
            chosen.append(grow_random(tensor, len(units), generator))
    return exchange(tensors, dropped, chosen)


def move(
    tensors: Sequence[Masked], dropped: Sequence[Tensor], counts: Sequence[int], signals: Sequence[Tensor]
) -> Event:
    """Drop units of each tensor, and grow ``counts`` of its units where ``signals``, shaped as the weight, is largest.

    Candidates are the inactive units and the ``dropped`` themselves.
    """
    chosen = [
        grow_largest(tensor, count, unit_magnitudes(tensor, signal), units)
        for tensor, units, count, signal in zip(tensors, dropped, counts, signals, strict=True)
    ]
    here = fetch([*dropped, *chosen])
    return exchange(tensors, here[: len(tensors)], here[len(tensors) :])


def exchange(tensors: Sequence[Masked], dropped: Sequence[Tensor], chosen: Sequence[Tensor]) -> Event:
    """Deactivate the ``dropped`` units of each tensor and activate the ``chosen``; one that is both just stays.

    The active ones among the ``chosen`` were ``dropped``.
    """
    killed, grown = [], []
    for tensor, lost, won in zip(tensors, dropped, chosen, strict=True):
        flags, lost, won = tensor.flags.numpy(), lost.numpy(), won.numpy()
        stays = flags[won]
        flags[won[stays]] = False
        killed.append(torch.from_numpy(lost[flags[lost]]))
        flags[won[stays]] = True
        grown.append(torch.from_numpy(won[~stays]))
        tensor.change(killed[-1], grown[-1])
    return Event(killed, grown)


@torch.no_grad()
def unit_magnitudes(tensor: Masked, signal: Tensor) -> Tensor:
    """The mean of abs(``signal``), shaped as the weight, over the weights of each unit; shaped as the mask."""
    size = torch.abs(signal, out=torch.empty_like(tensor.weight))  # laid out as the weight, which numbers the units
    sliced = tuple(range(tensor.mask.ndim, size.ndim))
    return size.mean(sliced).contiguous() if sliced else size


def momentum_of(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor | None:
    """The optimizer's running sum (SGD) or mean (AdamW) of the gradients of ``weight``; none before its first step."""
    state = optimizer.state.get(weight, {})
    return state.get("momentum_buffer", state.get("exp_avg"))
