"""Which units a rewiring event kills and which it grows. Nothing here changes a weight or a mask.

Every function takes a :class:`~research.layers.masked.Masked` and returns unit numbers (int64). Growth chooses among
the units that are inactive now, and killed units leave the mask only when the event is applied: a unit is never killed
and grown in the same event.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from research.layers.masked import Masked, where


def drop_magnitude_threshold(tensor: Masked, threshold: float) -> Tensor:
    """Active units of magnitude strictly below ``threshold``; the first of them is spared where all would die."""
    killed = tensor.active[where(tensor.magnitudes() < threshold)]
    return killed[1:] if len(killed) == len(tensor.active) else killed


def drop_smallest(tensor: Masked, count: int) -> Tensor:
    """The ``count`` active units of smallest magnitude (all of them if there are fewer)."""
    count = min(count, len(tensor.active))
    return tensor.active[tensor.magnitudes().topk(count, largest=False, sorted=False).indices]


def drop_smallest_of_all(tensors: Sequence[Masked], count: int) -> list[Tensor]:
    """The ``count`` active units of smallest magnitude in the whole network; of every tensor the largest is spared."""
    magnitudes = [tensor.magnitudes() for tensor in tensors]
    for magnitude in magnitudes:
        if len(magnitude):
            magnitude[magnitude.argmax()] = torch.inf
    everywhere = torch.cat(magnitudes)
    most = len(everywhere) - sum(len(magnitude) > 0 for magnitude in magnitudes)
    chosen = torch.zeros_like(everywhere, dtype=torch.bool)
    chosen[everywhere.topk(min(count, most), largest=False, sorted=False).indices] = True
    parts = chosen.split([len(magnitude) for magnitude in magnitudes])
    return [tensor.active[where(part)] for tensor, part in zip(tensors, parts, strict=True)]


def drop_sign_flips(tensor: Masked, memory: Tensor) -> Tensor:
    """Active weights whose sign is opposite to the one in ``memory`` (N,), int8, where 0 is none yet."""
    return tensor.active[where(tensor.values().sign() * memory.index_select(0, tensor.active) < 0)]


def grow_random(tensor: Masked, count: int, generator: torch.Generator) -> Tensor:
    """``count`` inactive units (all of them if there are fewer), uniformly without replacement, ascending.

    Where few of many are wanted, positions are drawn until enough are free: the cost is that of ``count``, not of N.
    """
    free = tensor.units - len(tensor.active)
    count = min(count, free)
    if 2 * free < tensor.units or 4 * count > free:
        candidates = tensor.inactive
    else:
        candidates = tensor.active[:0]
        while len(candidates) < count:
            draws = int(1.3 * count * tensor.units / free) + 8
            drawn = torch.randint(tensor.units, (draws,), generator=generator).to(candidates.device)
            candidates = torch.cat([candidates, drawn[where(~tensor.is_active(drawn))]]).unique()
    chosen = torch.ones(len(candidates), dtype=torch.bool)
    chosen[torch.randperm(len(candidates), generator=generator)[count:]] = False
    return candidates[where(chosen.to(candidates.device))]


def grow_largest(tensor: Masked, count: int, score: Tensor) -> Tensor:
    """The ``count`` inactive units of largest ``score`` (a float tensor shaped as the mask; all if there are fewer)."""
    inactive = tensor.inactive
    scores = tensor.flat(score).index_select(0, inactive)
    return inactive[scores.topk(min(count, len(inactive)), sorted=False).indices]
