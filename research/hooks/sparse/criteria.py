"""Which units a rewiring event kills and which it grows. Nothing here changes a weight or a mask.

Every function takes a :class:`~research.layers.masked.Masked`, or all of a network, and returns unit numbers (int64).
Growth chooses among the units that are inactive now, and killed units leave the mask only when the event is applied: a
unit is never killed and grown in the same event.

A GPU ranks, the host decides. ``drop_smallest`` and ``grow_largest`` return lists on the device of the weights and wait
for nothing: :func:`~research.devices.fetch` brings those of all tensors at once. The functions that take all tensors
wait once and return lists of the host; growth at random happens there, with the same numbers on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from research.devices import fetch, send
from research.layers.masked import Masked, active_weights, largest, where


def drop_magnitude_threshold(tensors: Sequence[Masked], threshold: float) -> list[Tensor]:
    """Active units of magnitude strictly below ``threshold``; of a tensor that would lose all, the first is spared."""
    small = fetch([tensor.magnitudes() < threshold for tensor in tensors])
    killed = [tensor.active.index_select(0, where(flags)) for tensor, flags in zip(tensors, small, strict=True)]
    return [u[1:] if len(u) == len(tensor.active) else u for tensor, u in zip(tensors, killed, strict=True)]


def drop_smallest(tensor: Masked, count: int) -> Tensor:
    """The ``count`` active units of smallest magnitude (all of them if there are fewer), ascending."""
    return tensor.places.index_select(0, largest(-tensor.magnitudes(), min(count, len(tensor.active))))


def drop_smallest_of_all(tensors: Sequence[Masked], count: int) -> list[Tensor]:
    """The ``count`` active units of smallest magnitude in the whole network; of every tensor the largest is spared."""
    magnitudes = [tensor.magnitudes() for tensor in tensors]
    for magnitude in magnitudes:
        if len(magnitude):
            magnitude.index_fill_(0, magnitude.argmax(keepdim=True), torch.inf)
    most = sum(max(0, len(magnitude) - 1) for magnitude in magnitudes)
    (positions,) = fetch([largest(-torch.cat(magnitudes), min(count, most))])
    return units_at(tensors, positions)


def drop_sign_flips(tensors: Sequence[Masked], before: Tensor) -> list[Tensor]:
    """Active weights whose sign is opposite to the one that they had in ``before``, where 0 is none yet.

    ``before`` holds the weights, or signs, of all active units, one tensor after the other.
    """
    (flipped,) = fetch([active_weights(tensors).mul_(before.sign()) < 0])
    return units_at(tensors, where(flipped))


def units_at(tensors: Sequence[Masked], positions: Tensor) -> list[Tensor]:
    """The units of each tensor at ``positions``, ascending, of the active units of all, one tensor after the other."""
    starts = list(accumulate((len(tensor.active) for tensor in tensors), initial=0))
    cuts = pairwise(np.searchsorted(positions.numpy(), starts).tolist())
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
        return tensor.inactive.index_select(0, chosen)
    grown, flags = np.arange(0), tensor.flags.numpy()
    while missing := count - len(grown):  # as if drawn one by one; a unit that comes again does not count
        draws = int(1.1 * missing * tensor.units / free) + 8
        drawn = torch.randint(tensor.units, (draws,), generator=generator).numpy()
        grown = np.unique(np.concatenate([grown, drawn[~flags[drawn]][:missing]]))
    return torch.from_numpy(grown)


@torch.no_grad()
def grow_largest(tensor: Masked, count: int, score: Tensor, dropped: Tensor) -> Tensor:
    """The ``count`` units of largest ``score`` (all of them if there are fewer), ascending.

    Candidates are the inactive units and the ``dropped`` ones among the active. ``score`` is a float tensor shaped as
    the mask, and of the same memory format; it is overwritten.
    """
    flat, dropped = tensor.flat(score), send(dropped, score.device)
    of_dropped = flat.index_select(0, dropped)
    flat.index_fill_(0, tensor.places, -torch.inf).index_copy_(0, dropped, of_dropped)
    return largest(flat, min(count, tensor.units - len(tensor.active) + len(dropped)))
