"""HashedNets: weights share a few values by a random hash (Chen et al., "Compressing Neural Networks with the Hashing
Trick", 2015; here without a sign hash).

W[j] = w[i[j]]: j runs over the weights row by row, i are fixed uniform indices of B buckets, w the B trained values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, Legacy, Pair, SeparableSubstitute, Substitute, area
from research.layers.families.cached import KeepsKernel, cached_in_eval
from research.parameters.signatures import Range

Indices = Annotated[
    Literal["all", "reference"], "buckets that are drawn: all, or all but the last as in the published code"
]
FRACTION = Range(above=0, most=1)


class HashedTensor(KeepsKernel):
    """A tensor of ``shape`` that shares ``weight``, (buckets,), by ``indices``, int32 and row by row.

    The indices come from a generator of their own, seeded from torch's global one at construction, and are kept in
    checkpoints; stored indices of any origin may be loaded.
    """

    def __init__(self, shape: Sequence[int], buckets: int, indices: str = "all"):
        super().__init__()
        self.shape = tuple(shape)
        self.weight = nn.Parameter(torch.empty(buckets))
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu")))
        drawn = buckets if indices == "all" else max(1, buckets - 1)
        self.register_buffer("indices", torch.randint(drawn, (math.prod(shape),), generator=own, dtype=torch.int32))

    @cached_in_eval
    def forward(self) -> Tensor:
        return self.weight.index_select(0, self.indices).view(self.shape)

    @torch.no_grad()
    def from_dense(self, dense: Tensor) -> None:
        """Least squares: every bucket takes the mean of the weights that share it; an unused one 0."""
        indices = self.indices.long()
        sums = torch.zeros_like(self.weight).index_add_(0, indices, dense.flatten().to(self.weight))
        self.weight.copy_(sums / indices.bincount(minlength=len(sums)).clamp(min=1))

    def extra_repr(self) -> str:
        return f"{self.shape}, buckets={len(self.weight)}"


class Hashed(Substitute):
    """The whole k x k kernel hashed into a fraction of its weights; a bias comes with it, asked for or not."""

    log_names = {"HashedDecimate": "hashed:0.1", r"Hashed_([\d.e-]+)": "hashed:{0}"}
    compressed = free = ("hashed.weight",)
    settings = (1e-6, 1)

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        fraction: Annotated[float, FRACTION, "buckets over weights of the dense convolution"] = 0.1,
        indices: Indices = "all",
        init: Init = "variance",
    ):
        super().__init__(replace(geometry, bias=True), {"fraction": fraction, "indices": indices})
        self.hashed = HashedTensor(geometry.weight_shape, self.buckets(geometry, fraction), indices)
        self.initialise(init)

    @staticmethod
    def buckets(geometry: Geometry, fraction: float) -> int:
        return max(1, int(geometry.dense * fraction))

    @classmethod
    def count_parameters(cls, geometry: Geometry, *, fraction: float = 0.1, **own: Any) -> int:
        return cls.buckets(geometry, fraction) + geometry.c_out

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        return geometry.dense * area(geometry.output_size(size, legacy))

    def forward(self, x: Tensor) -> Tensor:
        return self.geometry.conv(x, self.hashed(), self.bias)

    def kernel(self) -> Tensor:
        return self.hashed()

    def initialise(self, init: str) -> None:
        """Buckets of variance 2 / (k^2 out) and no bias; as published: both as PyTorch starts the dense layer."""
        g = self.geometry
        if init == "variance":
            nn.init.normal_(self.hashed.weight, std=(2 / (g.taps * g.c_out)) ** 0.5)
            nn.init.zeros_(self.bias)
        else:
            _uniform(self.hashed.weight, self.bias, fan_in=g.dense // g.c_out)

    @torch.no_grad()
    def from_dense(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.hashed.from_dense(weight)
        self.bias.copy_(bias) if bias is not None else self.bias.zero_()


class SepHashed(SeparableSubstitute):
    """A depthwise convolution and a hashed 1x1 convolution, always with a bias."""

    log_names = {"SepHashedDecimate": "sephashed:0.1,of=dense", r"SepHashed_([\d.e-]+)": "sephashed:{0}"}
    compressed = ("hashed.weight", "bias")
    free = ("hashed.weight",)
    settings = (1e-6, 1)

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        fraction: Annotated[float, FRACTION, "parameters over what `of` names"] = 0.1,
        of: Annotated[
            Literal["pointwise", "dense"], "1x1 weights; or the k x k kernel, the depthwise part paid from it first"
        ] = "pointwise",
        indices: Indices = "all",
        init: Init = "variance",
    ):
        super().__init__(replace(geometry, bias=True), {"fraction": fraction, "of": of, "indices": indices})
        shape = geometry.c_out, geometry.c_in
        self.hashed = HashedTensor(shape, self.buckets(geometry, fraction, of), indices)
        self.initialise(init)

    @staticmethod
    def buckets(geometry: Geometry, fraction: float, of: str) -> int:
        if of == "pointwise" or geometry.taps == 1:
            return max(1, int(geometry.c_in * geometry.c_out * fraction))
        return int(geometry.dense * fraction) - geometry.depthwise().dense

    @classmethod
    def unsupported(cls, geometry: Geometry, *, fraction: float = 0.1, of: str = "pointwise", **own: Any) -> str | None:
        reason = super().unsupported(geometry)
        if not reason and not 1 <= cls.buckets(geometry, fraction, of) <= geometry.c_in * geometry.c_out:
            reason = f"{fraction:g} of the dense kernel leaves {cls.buckets(geometry, fraction, of)} buckets for 1x1"
        return reason

    @classmethod
    def count_parameters(cls, geometry: Geometry, *, fraction: float = 0.1, of: str = "pointwise", **own: Any) -> int:
        dw = geometry.depthwise()
        return (dw.dense if dw else 0) + cls.buckets(geometry, fraction, of) + geometry.c_out

    def matrix(self) -> Tensor:
        return self.hashed()

    def initialise(self, init: str) -> None:
        """Buckets of variance 2 / out and no bias; as published: both as PyTorch starts the dense layer."""
        self.initialise_depthwise(init)
        if init == "variance":
            nn.init.normal_(self.hashed.weight, std=(2 / self.geometry.c_out) ** 0.5)
            nn.init.zeros_(self.bias)
        else:
            _uniform(self.hashed.weight, self.bias, fan_in=self.geometry.c_in)

    @torch.no_grad()
    def matrix_from_dense(self, matrix: Tensor) -> None:
        self.hashed.from_dense(matrix)
        self.bias.zero_()


class FullySepHashed(Substitute):
    """Depthwise and 1x1 weights both hashed, each with a bias, sharing ``fraction`` of both by their sizes.

    What the log's SepHashedDecimate was from 11 to 17 December 2018.
    """

    compressed = ("spatial.weight", "spatial_bias", "hashed.weight", "bias")
    free = ("hashed.weight",)  # the depthwise kernel stays whole, as any
    settings = (1e-6, 1)

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        fraction: Annotated[float, FRACTION, "buckets over depthwise and 1x1 weights"] = 0.1,
        indices: Indices = "all",
        init: Init = "variance",
    ):
        super().__init__(replace(geometry, bias=True), {"fraction": fraction, "indices": indices})
        self.depthwise, self.point = geometry.depthwise(), geometry.pointwise()
        spatial, buckets = self.buckets(geometry, fraction)
        if self.depthwise:
            self.spatial = HashedTensor(self.depthwise.weight_shape, spatial, indices)
            self.spatial_bias = nn.Parameter(torch.empty(geometry.c_in))
        else:
            self.compressed = ("hashed.weight", "bias")
        self.hashed = HashedTensor(self.point.weight_shape, buckets, indices)
        self.initialise(init)

    @staticmethod
    def buckets(geometry: Geometry, fraction: float) -> tuple[int, int]:
        """Sizes of the banks of the depthwise and of the 1x1 weights."""
        spatial = geometry.depthwise().dense if geometry.depthwise() else 0
        both = spatial + geometry.c_in * geometry.c_out
        budget = int(both * fraction)
        shares = (max(1, int(budget * size / both)) for size in (spatial, both - spatial))
        return tuple(shares) if spatial else (0, max(1, budget))

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        return f"needs groups=1, not {geometry.groups}" if geometry.groups != 1 else None

    @classmethod
    def count_parameters(cls, geometry: Geometry, *, fraction: float = 0.1, **own: Any) -> int:
        biases = geometry.c_out + (geometry.c_in if geometry.taps > 1 else 0)
        return sum(cls.buckets(geometry, fraction)) + biases

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        return SepHashed.count_mult_adds(geometry, size, legacy)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise:
            x = self.depthwise.conv(x, self.spatial(), self.spatial_bias)
        return self.point.conv(x, self.hashed(), self.bias)

    def kernel(self) -> Tensor:
        """The equivalent dense kernel; the biases together are ``bias + hashed @ spatial_bias``."""
        return self.hashed() * self.spatial()[None, :, 0] if self.depthwise else self.hashed()

    def initialise(self, init: str) -> None:
        g = self.geometry
        if init == "reference":
            _uniform(self.hashed.weight, self.bias, fan_in=g.c_in)
            if self.depthwise:
                _uniform(self.spatial.weight, self.spatial_bias, fan_in=g.taps)
            return
        nn.init.normal_(self.hashed.weight, std=(2 / g.c_out) ** 0.5)
        nn.init.zeros_(self.bias)
        if self.depthwise:
            nn.init.normal_(self.spatial.weight, std=g.taps**-0.5)
            nn.init.zeros_(self.spatial_bias)


def _uniform(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    for tensor in (weight, bias):
        nn.init.uniform_(tensor, -(fan_in**-0.5), fan_in**-0.5)
