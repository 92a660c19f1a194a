"""Ranges and joint histograms of pairs of pixels in plain torch: on any device, and where numba is missing.

Shapes as in ``nmi.py``. On the CPU pairs are counted by bincount; on a GPU, where atomic increments of few cells wait
for each other, by a matrix product of one-hot codes: J = onehot(X)^T onehot(Y), exact because every partial sum is an
integer below 2^24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from research.devices import send

if TYPE_CHECKING:
    from research.measures.nmi import Geometry

CHUNK = {"cpu": 1 << 18, "cuda": 1 << 22}  # values handled at once: what stays in cache, what fills a GPU
SEGMENT = 4096  # pairs of one matrix product


def ranges(x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """(low (2, C, T), high (2, C, T), pairs (C, T)); nan where a channel has nan."""
    low = _extrema(x, geometry, torch.amin)
    high = _extrema(x, geometry, torch.amax)
    pairs = [len(x) * pairing.size[0] * pairing.size[1] for pairing in geometry.pairings]
    return low, high, send(torch.tensor(pairs), x.device).expand(x.shape[1], -1).clone()


def _extrema(x: Tensor, geometry: Geometry, extreme: Callable) -> Tensor:
    """``extreme`` (amin or amax) of both rectangles of every pairing: (2, C, T)."""
    top, bottom, left, right = geometry.padding
    # over the images first, in the order of memory: 17 times faster than against it
    plane = extreme(x.permute(0, 2, 3, 1), dim=0).permute(2, 0, 1) if _channels_last(x) else extreme(x, dim=0)
    plane = F.pad(plane.contiguous(), (left, right, top, bottom))
    over_columns = {}  # many rectangles share their columns
    extremes = []
    for pairing in geometry.pairings:
        height, width = pairing.size
        for y, x in (pairing.x, pairing.y):
            if not height or not width:
                extremes.append(plane.new_zeros(len(plane)))
                continue
            if (x, width) not in over_columns:
                over_columns[x, width] = extreme(plane[:, :, x : x + width], dim=2)
            extremes.append(extreme(over_columns[x, width][:, y : y + height], dim=1))
    return torch.stack(extremes).unflatten(0, (-1, 2)).permute(1, 2, 0).contiguous()


def sparse_ranges(x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`ranges` gives, over the pairs without a zero only; without any: low = inf, high = -inf."""
    lows, highs, pairs = [], [], []
    for chunk in _chunks(x):
        maps = x[:, chunk]
        for pairing in geometry.pairings:
            sides = [_rectangle(maps, corner, pairing.size) for corner in (pairing.x, pairing.y)]
            kept = (sides[0] != 0) & (sides[1] != 0)
            pairs.append(kept.sum(dim=(0, 2, 3)))
            lows.append(torch.stack([_extreme(side, kept, torch.inf, torch.amin) for side in sides]))
            highs.append(torch.stack([_extreme(side, kept, -torch.inf, torch.amax) for side in sides]))
    taps = len(geometry.pairings)

    def joined(parts: list[Tensor]) -> Tensor:
        chunks = [torch.stack(parts[at : at + taps], dim=-1) for at in range(0, len(parts), taps)]
        return torch.cat(chunks, dim=-2)

    return joined(lows), joined(highs), joined(pairs)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _extreme(side: Tensor, kept: Tensor, empty: float, extreme: Callable) -> Tensor:
    if not kept.numel():
        return side.new_full((side.shape[1],), empty)
    return extreme(torch.where(kept, side, empty), dim=(0, 2, 3))


def counts(x: Tensor, geometry: Geometry, low: Tensor, high: Tensor, bins: Tensor, finite: Tensor) -> Tensor:
    """Joint histograms, int64 (C, T, b, b) with b the largest of ``bins``."""
    largest = int(bins.max())
    top, bottom, left, right = geometry.padding
    low, scale = low.double(), scales(low, high, bins)
    out = torch.zeros(*bins.shape, largest, largest, dtype=torch.int64, device=x.device)
    for chunk in _chunks(x):
        maps = F.pad(x[:, chunk], (left, right, top, bottom))
        binned = _BinnedMaps(maps, low[:, chunk], scale[:, chunk], bins[chunk])
        for t, pairing in enumerate(geometry.pairings):
            if t == 0 or geometry.variant != "center":  # where all pairings share their centre pixels
                q_x = binned.window(0, t, pairing.x, pairing.size)
            q_y = binned.window(1, t, pairing.y, pairing.size)
            if geometry.variant == "sparse":
                sides = [_rectangle(maps, corner, pairing.size) for corner in (pairing.x, pairing.y)]
                q_x = torch.where(_flat((sides[0] != 0) & (sides[1] != 0)), q_x, largest)
            if q_y.numel():
                out[chunk, t] = count_pairs(q_x, q_y, largest)
    out[~finite] = 0
    return out


class _BinnedMaps:
    """Padded maps (B, C, h, w) and their bins, from ``low``, ``scale`` (2, C, T) and ``bins`` (C, T).

    Most windows share the range of the first: all maps are binned once with that, and a window binned again for those
    channels only whose range differs.
    """

    def __init__(self, maps: Tensor, low: Tensor, scale: Tensor, bins: Tensor):
        self.maps, self.low, self.scale, self.bins = maps, low, scale, bins
        self.first = _bin(maps, low[0, :, 0], scale[0, :, 0], bins[:, 0])
        differs = (low != low[:1, :, :1]) | (scale != scale[:1, :, :1]) | (bins != bins[:, :1])
        self.differs = differs.cpu()  # one synchronisation instead of one a window

    def window(self, side: int, t: int, corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Bins of one side of pairing ``t``: (C, B * h * w) int32."""
        binned = _flat(_rectangle(self.first, corner, size))
        again = self.differs[side, :, t].nonzero()[:, 0]
        if len(again):
            again = send(again, binned.device)
            values = _rectangle(self.maps[:, again], corner, size)
            how = self.low[side, again, t], self.scale[side, again, t], self.bins[again, t]
            binned[again] = _flat(_bin(values, *how))
        return binned


def count_pairs(q_x: Tensor, q_y: Tensor, bins: int) -> Tensor:
    """Joint histograms of two (C, n) arrays of bins, int64 (C, bins, bins); pairs with q_x = bins are left out."""
    return (count_by_bincount if q_x.device.type == "cpu" else count_by_product)(q_x, q_y, bins)


def count_by_bincount(q_x: Tensor, q_y: Tensor, bins: int) -> Tensor:
    cells = (bins + 1) * bins
    channel = torch.arange(len(q_x), dtype=torch.int32, device=q_x.device)[:, None]
    code = (channel * (bins + 1) + q_x).mul_(bins).add_(q_y)
    histograms = torch.bincount(code.flatten(), minlength=len(q_x) * cells)
    return histograms.view(len(q_x), bins + 1, bins)[:, :bins]


def count_by_product(q_x: Tensor, q_y: Tensor, bins: int) -> Tensor:
    codes = torch.arange(bins, dtype=q_x.dtype, device=q_x.device)
    histograms = torch.zeros(len(q_x), bins, bins, dtype=torch.int64, device=q_x.device)
    step = SEGMENT * max(1, CHUNK["cuda"] // (SEGMENT * len(q_x)))  # bounds the memory of one-hot codes
    for at in range(0, q_x.shape[1], step):
        parts = (q[:, at : at + step] for q in (q_x, q_y))
        rest = -min(step, q_x.shape[1] - at) % SEGMENT
        segments = (F.pad(part, (0, rest), value=bins).view(-1, SEGMENT, 1) for part in parts)
        one_hot_x, one_hot_y = ((segment == codes).float() for segment in segments)
        product = torch.bmm(one_hot_x.transpose(1, 2), one_hot_y)
        histograms += product.view(len(q_x), -1, bins, bins).sum(dim=1, dtype=torch.float64).long()
    return histograms


def nmi(counts: Tensor, sparse: bool) -> Tensor:
    """NMI of every joint histogram (C, T, b, b), float64 (C, T); ``sparse`` leaves out the diagonal.

    0 where a side is constant; where no cell but one is occupied nan, or 0 for ``sparse``.
    """
    if sparse:
        counts = counts - torch.diag_embed(counts.diagonal(dim1=-2, dim2=-1))
    of_x, of_y = counts.sum(dim=-1), counts.sum(dim=-2)
    total = of_x.sum(dim=-1, keepdim=True).clamp(min=1)
    joint = _entropy(counts.flatten(-2), total)
    values = ((_entropy(of_x, total) + _entropy(of_y, total) - joint) / joint).clamp(0, 1)
    constant = ((of_x > 0).sum(dim=-1) <= 1) | ((of_y > 0).sum(dim=-1) <= 1)
    values[constant] = 0.0  # exactly, whatever the rounding of the entropies
    values[(counts > 0).sum(dim=(-2, -1)) <= 1] = 0.0 if sparse else torch.nan
    return values


def _entropy(counts: Tensor, total: Tensor) -> Tensor:
    """Entropy (nats) of the distributions ``counts / total`` along the last axis."""
    p = counts / total.double()
    return torch.special.entr(p).sum(dim=-1)


def scales(low: Tensor, high: Tensor, bins: Tensor) -> Tensor:
    """Bins per unit, float64 (2, C, T): bins / (high + 1e-12 - low), and 0 where that width is none."""
    width = high.double() + 1e-12 - low.double()
    return torch.where((width > 0) & width.isfinite(), bins / width, 0.0)


def _bin(values: Tensor, low: Tensor, scale: Tensor, bins: Tensor) -> Tensor:
    """Bins of ``values`` (B, C, h, w) with ``low``, ``scale`` and ``bins`` of each channel: int32 like ``values``."""
    low, scale, last = (a[:, None, None] for a in (low, scale, bins - 1))
    at = (values.double() - low).mul_(scale).nan_to_num_(0.0)
    return torch.minimum(at.clamp_(min=0), last.double()).to(torch.int32)


def _rectangle(maps: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    return maps[:, :, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def _flat(maps: Tensor) -> Tensor:
    """(B, C, h, w) to a copy (C, B * h * w)."""
    return maps.transpose(0, 1).clone(memory_format=torch.contiguous_format).flatten(1)


def _chunks(x: Tensor) -> Iterator[slice]:
    """Slices of channels."""
    step = max(1, CHUNK.get(x.device.type, CHUNK["cuda"]) // (x.numel() // x.shape[1]))
    return (slice(at, min(at + step, x.shape[1])) for at in range(0, x.shape[1], step))
