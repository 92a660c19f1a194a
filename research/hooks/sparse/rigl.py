"""RigL: drop the smallest weights, grow where the gradient is largest (Evci et al. 2020, arXiv 1911.11134).

Every ``period`` steps t up to T_end, in every layer with M active units and a dense gradient G:

    f(t) = a/2 (1 + cos(pi t / T_end))          k = trunc(f(t) M)
    keep the M - k active units of largest abs(w); grow the k units of largest abs(G) among all that are not kept

A unit that was just dropped may grow again at once; then nothing happened to it. New units start at 0 with momentum 0.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from research.hooks.sparse.criteria import drop_smallest
from research.layers.masked import Masked

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
    """The units that an event kills and those that it grows, (at most k,) int64 each and equally many.

    Args:
        grad: dense, dL/dW at the masked weights, shaped as the weight.
        k: units dropped and grown; those that are both appear in neither result.
    """
    dropped = drop_smallest(tensor, k)
    return swap(dropped, grow_strongest(tensor, dropped, len(dropped), grad))


def grow_strongest(tensor: Masked, dropped: Tensor, count: int, signal: Tensor) -> Tensor:
    """The ``count`` units of largest abs(``signal``), shaped as the weight, among the inactive and the ``dropped``."""
    closed = tensor.flat(tensor.mask).clone()
    closed[dropped] = False
    strength = unit_magnitudes(tensor, signal).masked_fill_(closed, -torch.inf)
    return strength.topk(count, sorted=False).indices


@torch.no_grad()
def unit_magnitudes(tensor: Masked, signal: Tensor) -> Tensor:
    """The mean of abs(``signal``), shaped as the weight, over the weights of each of the N units: (N,)."""
    size = torch.abs(signal, out=torch.empty_like(tensor.weight))  # laid out as the weight, which numbers the units
    sliced = tuple(range(tensor.mask.ndim, size.ndim))
    return tensor.flat(size.mean(sliced).contiguous() if sliced else size)


def swap(dropped: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Killed and grown, when of the ``dropped`` units those that were ``chosen`` again just stay."""
    return dropped[~torch.isin(dropped, chosen)], chosen[~torch.isin(chosen, dropped)]
