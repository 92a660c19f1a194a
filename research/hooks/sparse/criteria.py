"""Which units a rewiring event kills and which it grows. Nothing here changes a weight or a mask.

Every function takes a :class:`~research.layers.masked.Masked` and returns unit numbers (int64). Growth chooses among
the units that are inactive now, and killed units leave the mask only when the event is applied: a unit is never killed
and grown in the same event.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from research.layers.masked import Masked, active_weights, largest, where


def drop_magnitude_threshold(tensor: Masked, threshold: float) -> Tensor:
    """Active units of magnitude strictly below ``threshold``; the first of them is spared where all would die."""
    killed = tensor.active.index_select(0, where(tensor.magnitudes() < threshold))
    return killed[1:] if len(killed) == len(tensor.active) else killed


def drop_smallest(tensor: Masked, count: int) -> Tensor:
    """The ``count`` active units of smallest magnitude (all of them if there are fewer), ascending."""
    return tensor.active.index_select(0, largest(-tensor.magnitudes(), min(count, len(tensor.active))))


def drop_smallest_of_all(tensors: Sequence[Masked], count: int) -> list[Tensor]:
    """The ``count`` active units of smallest magnitude in the whole network; of every tensor the largest is spared."""
    magnitudes = [tensor.magnitudes() for tensor in tensors]
    for magnitude in magnitudes:
        if len(magnitude):
            magnitude[magnitude.argmax()] = torch.inf
    most = sum(max(0, len(magnitude) - 1) for magnitude in magnitudes)
    return units_at(tensors, largest(-torch.cat(magnitudes), min(count, most)))


def drop_sign_flips(tensors: Sequence[Masked], before: Tensor) -> list[Tensor]:
    """Active weights whose sign is opposite to the one that they had in ``before``, where 0 is none yet.

    ``before`` holds the weights, or signs, of all active units, one tensor after the other.
    """
    return units_at(tensors, where(active_weights(tensors).mul_(before.sign()) < 0))


def units_at(tensors: Sequence[Masked], positions: Tensor) -> list[Tensor]:
    """The units of each tensor at ``positions``, ascending, of the active units of all, one tensor after the other."""
    starts = list(accumulate((len(tensor.active) for tensor in tensors), initial=0))
    cuts = pairwise(np.searchsorted(positions.cpu().numpy(), starts).tolist())
    parts = zip(tensors, starts[:-1], cuts, strict=True)
    return [
        tensor.active.index_select(0, positions[a:b] - start) if b > a else tensor.active[:0]
        for tensor, start, (a, b) in parts
    ]


def grow_random(tensor: Masked, count: int, generator: torch.Generator | None = None) -> Tensor:
    """``count`` inactive units (all of them if there are fewer), uniformly without replacement, ascending.

    Where few of many are wanted, positions are drawn until enough are free: the cost is that of ``count``, not of N.
    """
    free = tensor.units - len(tensor.active)
    count = min(count, free)
    if 2 * free < tensor.units or 4 * count > free:
        chosen = torch.randperm(free, generator=generator)[:count].sort().values
        return tensor.inactive.index_select(0, chosen.to(tensor.active.device))
    grown = tensor.active[:0]
    while missing := count - len(grown):  # as if drawn one by one; a unit that comes again does not count
        draws = int(1.1 * missing * tensor.units / free) + 8
        drawn = torch.randint(tensor.units, (draws,), generator=generator).to(grown.device)
        drawn = drawn.index_select(0, where(~tensor.is_active(drawn)))[:missing]
        grown = torch.cat([grown, drawn]).unique()
    return grown


@torch.no_grad()
def grow_largest(tensor: Masked, count: int, score: Tensor) -> Tensor:
    """The ``count`` inactive units of largest ``score`` (all of them if there are fewer), ascending.

    ``score`` is a float tensor shaped as the mask, and of the same memory format.
    """
    scores = tensor.flat(score).index_fill(0, tensor.active, -torch.inf)
    return largest(scores, min(count, tensor.units - len(tensor.active)))
