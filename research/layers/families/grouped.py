"""Grouped and separable convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, Legacy, Pair, SeparableSubstitute, Substitute, add_bias, area
from research.parameters.signatures import Range


class Separable(SeparableSubstitute):
    """A depthwise k x k convolution and a dense 1x1 convolution (Sifre 2014; MobileNet, Howard et al. 2017).

    The unit that DARTS is built from; other families replace it as a whole.
    """

    log_names = {"Sep": "sep"}

    def __init__(self, geometry: Geometry, /, *, init: Init = "variance"):
        super().__init__(geometry)
        self.pointwise = replace(self.point, bias=False).make_conv()
        self.initialise(init)

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int) -> int:
        return c_in * c_out

    def matrix(self) -> Tensor:
        return self.pointwise.weight[:, :, 0, 0]

    def forward(self, x: Tensor) -> Tensor:
        return add_bias(self.pointwise(x if self.depthwise is None else self.depthwise(x)), self.bias)

    def initialise(self, init: str) -> None:
        self.initialise_depthwise(init)
        nn.init.normal_(self.pointwise.weight, std=(2 / self.geometry.c_out) ** 0.5)

    @torch.no_grad()
    def matrix_from_dense(self, matrix: Tensor) -> None:
        self.matrix().copy_(matrix)


class Shuffle(Substitute):
    """Grouped 1x1 to q = out // 4 channels, channel shuffle, depthwise k x k, grouped 1x1 (ShuffleNet, Zhang 2017).

    Linear: no normalisation or ReLU inside. Groups that do not divide in, out and q step down to the next that do.
    """

    log_names = {r"Shuffle_(\d+)": "shuffle:{0}"}
    compressed = ("contract.weight", "depthwise.weight", "expand.weight")
    settings = (1, 1024)

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        groups: Annotated[int, Range(least=1), "groups of both 1x1 convolutions"] = 4,
        init: Init = "variance",
    ):
        super().__init__(geometry, {"groups": groups})
        g, q = self.fitting(geometry, groups), geometry.c_out // 4
        self.groups = g
        self.contract = Geometry(geometry.c_in, q, groups=g).make_conv()
        self.depthwise = replace(geometry, c_in=q, c_out=q, groups=q, bias=False).make_conv()
        self.expand = Geometry(q, geometry.c_out, groups=g).make_conv()
        self.initialise(init)

    @staticmethod
    def fitting(geometry: Geometry, groups: int) -> int:
        """The largest number of groups up to ``groups`` that divides in, out and q."""
        sizes = geometry.c_in, geometry.c_out, geometry.c_out // 4
        return next(g for g in range(min(groups, *sizes), 0, -1) if not any(size % g for size in sizes))

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        if geometry.groups != 1:
            return f"needs groups=1, not {geometry.groups}"
        return "needs at least 4 output channels" if geometry.c_out < 4 else None

    @classmethod
    def count_parameters(cls, geometry: Geometry, *, groups: int = 4) -> int:
        g, q = cls.fitting(geometry, groups), geometry.c_out // 4
        bias = geometry.c_out if geometry.bias else 0
        return (geometry.c_in + geometry.c_out) * q // g + q * geometry.taps + bias

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), *, groups: int = 4) -> float:
        g, q = cls.fitting(geometry, groups), geometry.c_out // 4
        spatial = q * geometry.taps * area(geometry.output_size(size, legacy))
        expand = q * geometry.c_out // g * area(geometry.output_size(size))
        return geometry.c_in * q // g * area(size) + spatial + expand

    def forward(self, x: Tensor) -> Tensor:
        x = self.contract(x)
        x = x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)  # (N, g, q/g) -> (N, q/g, g)
        return add_bias(self.expand(self.depthwise(x)), self.bias)

    def kernel(self) -> Tensor:
        contract, expand = (
            torch.block_diag(*c.weight[:, :, 0, 0].chunk(self.groups)) for c in (self.contract, self.expand)
        )
        contract = contract.unflatten(0, (self.groups, -1)).transpose(0, 1).flatten(0, 1)
        return torch.einsum("oq,qkl,qi->oikl", expand, self.depthwise.weight[:, 0], contract)

    def initialise(self, init: str) -> None:
        """Variances g / in, 1 / k^2 and 2 in g / (q out); as published 2 / (k^2 channels out) of each convolution."""
        g, q, taps = self.geometry, self.geometry.c_out // 4, self.geometry.taps
        if init == "variance":
            variances = self.groups / g.c_in, 1 / taps, 2 * g.c_in * self.groups / (q * g.c_out)
        else:
            variances = 2 / q, 2 / (taps * q), 2 / g.c_out
        for conv, variance in zip((self.contract, self.depthwise, self.expand), variances, strict=True):
            nn.init.normal_(conv.weight, std=variance**0.5)
