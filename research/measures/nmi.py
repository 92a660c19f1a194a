"""How strongly a pixel of a feature map depends on its neighbour at each tap of a kernel, and the gradient multiplier.

The correlation gradient multiplier (GraM, published as Spatial Gradient Scaling, arXiv 2303.02733) measures normalised
mutual information (NMI) between a map's pixels and their neighbours. Per channel and tap: pool all pairs of all images,
bin both sides, count the joint histogram, take entropies. The three steps are separate functions because the first two
give numbers that add up over processes: :func:`ranges` (minimum, maximum, number of pairs), :func:`joint_counts`
(integers), :func:`nmi_of_counts`.

Shapes: x (B, C, H, W) unpadded; T pairings, one for each tap that is computed; b bins an axis; kernel (kh, kw).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from research.errors import UsageError, nearest
from research.measures import nmi_torch

Variant = Literal["center", "allpairs", "sparse"]
Pair = int | tuple[int, int]


@dataclass(frozen=True)
class Pairing:
    """Which pixels of a padded map pair up at tap (i, j): those of one rectangle with those of another, in order."""

    tap: tuple[int, int]
    x: tuple[int, int]  # top and left of the rectangle of centre pixels
    y: tuple[int, int]  # top and left of the rectangle of neighbours
    size: tuple[int, int]  # height and width of both
    mirror: tuple[int, int] | None  # the opposite tap, where the kernel has one


@dataclass(frozen=True)
class Geometry:
    """All pairings of one convolution on maps of one size."""

    kernel: tuple[int, int]
    padding: tuple[int, int, int, int]  # zeros at the top, bottom, left and right
    variant: Variant
    pairings: tuple[Pairing, ...]

    @property
    def centre(self) -> tuple[int, int]:
        return (self.kernel[0] - 1) // 2, (self.kernel[1] - 1) // 2


@dataclass
class Ranges:
    """What has to be known of all images before counting. Merge processes by MIN, MAX and SUM."""

    low: Tensor  # (2, C, T) float32: smallest centre pixel, smallest neighbour
    high: Tensor  # (2, C, T) float32: the largest ones
    pairs: Tensor  # (C, T) int64

    @property
    def bins(self) -> Tensor:
        """1 + ceil(log2 pairs) for each channel and pairing; int64 (C, T)."""
        return 1 + torch.frexp((self.pairs - 1).clamp(min=0).double()).exponent.long()

    @property
    def finite(self) -> Tensor:
        """Channels without nan and inf: bool (C,)."""
        return (self.low > -torch.inf).all(dim=(0, 2)) & (self.high < torch.inf).all(dim=(0, 2))


# -- what a user calls ----------------------------------------------------------------------------------------------


def nmi_k(nmi: Tensor, k: float) -> Tensor:
    """NMI-k = k NMI / ((k - 1) NMI + 1): the odds NMI / (1 - NMI) times k. Fixes 0 and 1; k = 1 is the identity."""
    if not k > 0:
        raise UsageError(f"k={k}: must be > 0")
    return k * nmi / ((k - 1) * nmi + 1)


def nmi_per_channel(
    x: Tensor, kernel_size: Pair, padding: Pair | str = 0, dilation: Pair = 1, variant: Variant = "center"
) -> Tensor:
    """NMI (k = 1) of every channel's pixels with their neighbours at each tap: float64 (C, kh, kw).

    1 at the centre tap; nan where undefined: both sides constant, or (with a warning) a channel with nan or inf.

    Args:
        x: (B, C, H, W), unpadded input of the convolution; all images are pooled.
        padding, dilation: as in ``torch.nn.Conv2d``, "same" and "valid" included; the stride does not matter.
        variant: "center" pairs the pixels under the centre tap with those under tap (i, j); "allpairs" all pixels p
            with p + offset, both in the padded map; "sparse" is "allpairs" without pairs that contain an exact zero,
            without the histogram's diagonal, and with 0 in place of nan.
    """
    x = _as_maps(x)
    geometry = geometry_of(x.shape[2:], kernel_size, padding, dilation, variant)
    if not geometry.pairings:  # a kernel of one tap
        return torch.ones(x.shape[1], 1, 1, dtype=torch.float64, device=x.device)
    limits = ranges(x, geometry)
    if not limits.finite.all():
        warnings.warn(f"{int((~limits.finite).sum())} of {x.shape[1]} channels hold nan or inf: left out", stacklevel=2)
    return nmi_of_counts(joint_counts(x, geometry, limits), geometry, limits)


def correlation_matrix(
    x: Tensor,
    kernel_size: Pair,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    k: float | Sequence[float] = 8.0,
    variant: Variant = "center",
) -> Tensor:
    """Mean over channels of NMI-k: float32 (kh, kw), or (nk, kh, kw) for a sequence of k (one histogram pass).

    nan at taps where no channel is defined. For the other arguments see :func:`nmi_per_channel`.
    """
    return channel_mean(nmi_per_channel(x, kernel_size, padding, dilation, variant), k)


def channel_mean(nmi: Tensor, k: float | Sequence[float]) -> Tensor:
    """(C, kh, kw) NMI to the correlation matrix, float32 (kh, kw) or (nk, kh, kw); undefined values are left out."""
    if isinstance(k, (int, float)):
        return nmi_k(nmi, k).nanmean(dim=0).float()
    return torch.stack([channel_mean(nmi, float(each)) for each in k])


def gradient_multiplier(corr: Tensor) -> Tensor:
    """M = corr / mean(corr) over the taps (last two axes), so that the mean learning rate stays what it was."""
    return corr / corr.mean(dim=(-2, -1), keepdim=True)


# -- the three steps ------------------------------------------------------------------------------------------------


def geometry_of(
    map_size: Sequence[int], kernel_size: Pair, padding: Pair | str, dilation: Pair, variant: Variant
) -> Geometry:
    """The pairings of a convolution on maps of ``map_size`` (H, W)."""
    if variant not in get_args(Variant):
        raise UsageError(f"variant={variant!r}{nearest(variant, get_args(Variant))}")
    kernel, dilation = _pair(kernel_size), _pair(dilation)
    pad = _padding(padding, kernel, dilation)
    if min(*kernel, *dilation) < 1 or min(pad) < 0:
        raise UsageError(f"kernel {kernel}, dilation {dilation}: must be >= 1, and padding {padding} >= 0")
    # the zeros of the padding are in no pair of "sparse"
    used = (0, 0, 0, 0) if variant == "sparse" else pad
    height, width = map_size[0] + used[0] + used[1], map_size[1] + used[2] + used[3]
    span = (kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1]
    if map_size[0] + pad[0] + pad[1] <= span[0] or map_size[1] + pad[2] + pad[3] <= span[1]:
        raise UsageError(f"kernel {kernel} with dilation {dilation} is larger than the padded {tuple(map_size)} map")
    ci, cj = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    pairings = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            opposite = 2 * ci - i, 2 * cj - j
            inside = 0 <= opposite[0] < kernel[0] and 0 <= opposite[1] < kernel[1]
            mirror = opposite if inside else None
            dy, dx = (i - ci) * dilation[0], (j - cj) * dilation[1]
            if (i, j) == (ci, cj):
                continue
            if variant == "center":
                x, y = (ci * dilation[0], cj * dilation[1]), (i * dilation[0], j * dilation[1])
                pairings.append(Pairing((i, j), x, y, (height - span[0], width - span[1]), mirror))
            elif mirror is None or (i, j) > mirror:  # the pairs of the opposite tap are the same, swapped
                size = max(0, height - abs(dy)), max(0, width - abs(dx))
                x, y = (max(0, -dy), max(0, -dx)), (max(0, dy), max(0, dx))
                pairings.append(Pairing((i, j), x, y, size, mirror))
    return Geometry(kernel, used, variant, tuple(pairings))


def ranges(x: Tensor, geometry: Geometry) -> Ranges:
    """Smallest and largest value of both sides of every pairing, exact in float32, and the number of pairs."""
    kernels = _kernels(x)
    limits = Ranges(*(kernels.sparse_ranges if geometry.variant == "sparse" else nmi_torch.ranges)(x, geometry))
    if geometry.variant == "sparse":  # which has looked at non-zero pairs only
        bad = ~(x.amin(dim=(0, 2, 3)).isfinite() & x.amax(dim=(0, 2, 3)).isfinite())
    else:
        bad = (limits.low.isnan() | limits.high.isnan()).any(dim=2).any(dim=0)
    limits.low[:, bad], limits.high[:, bad] = -torch.inf, torch.inf  # survives MIN and MAX, which nan does not
    return limits


def joint_counts(x: Tensor, geometry: Geometry, limits: Ranges) -> Tensor:
    """Joint histograms (rows: bins of the centre pixel, columns: bins of the neighbour): int64 (C, T, b, b).

    b is the largest number of bins; a pairing with fewer leaves the rest empty. Bin edges in float64: index =
    floor((v - low) * (bins / (high + 1e-12 - low))), clipped to the last bin. Channels with nan or inf stay empty.
    """
    kernels = _kernels(x)
    return kernels.counts(x, geometry, limits.low, limits.high, limits.bins, limits.finite)


def nmi_of_counts(counts: Tensor, geometry: Geometry, limits: Ranges) -> Tensor:
    """Entropies in float64, and from them NMI = (H(X) + H(Y) - H(X, Y)) / H(X, Y): float64 (C, kh, kw)."""
    nmi = _kernels(counts).nmi(counts, geometry.variant == "sparse")
    nmi[~limits.finite] = torch.nan

    matrix = torch.ones(len(nmi), *geometry.kernel, dtype=torch.float64, device=nmi.device)
    for t, pairing in enumerate(geometry.pairings):
        matrix[:, *pairing.tap] = nmi[:, t]
        if geometry.variant != "center" and pairing.mirror:
            matrix[:, *pairing.mirror] = nmi[:, t]
    return matrix


def _kernels(x: Tensor) -> ModuleType:
    """Where counting happens: compiled on the CPU, in torch on a GPU or without numba."""
    return _compiled() if x.device.type == "cpu" else nmi_torch


@cache
def _compiled() -> ModuleType:
    try:
        from research.measures import nmi_compiled  # numba may be missing
    except ImportError:
        return nmi_torch
    return nmi_compiled


def _as_maps(x: Tensor) -> Tensor:
    x = torch.as_tensor(x).detach().float()
    if x.ndim != 4 or not x.numel():
        raise UsageError(f"x of shape {tuple(x.shape)}: expected (B, C, H, W), none of them 0")
    return x


def _pair(value: Pair) -> tuple[int, int]:
    first, second = value if isinstance(value, Iterable) else (value, value)
    return int(first), int(second)


def _padding(padding: Pair | str, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    if padding == "same":
        total = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    high, wide = (0, 0) if isinstance(padding, str) else _pair(padding)
    return high, high, wide, wide
