"""A 1x1 convolution as the product of two thin ones, with a depthwise convolution before it where k > 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, Legacy, SeparableSubstitute, add_bias
from research.parameters.signatures import Range

RANK = Annotated[float, Range(above=0, most=1), "inner channels over the larger of in and out"]


def inner(c_in: int, c_out: int, rank: float) -> int:
    """Channels between the two factors."""
    return max(1, int(rank * max(c_in, c_out)))


class Generic(SeparableSubstitute):
    """matrix = E C with C (r, in), E (out, r) and r = rank x max(in, out): the log's rank-factorised convolution."""

    log_names = {r"Generic_([\d.e-]+)": "generic:{0}", r"RF_([\d.e-]+)": "generic:{0}"}
    compressed = ("contract.weight", "expand.weight")
    settings = (1e-6, 1)

    def __init__(self, geometry: Geometry, /, *, rank: RANK = 0.25, init: Init = "variance"):
        super().__init__(geometry, {"rank": rank})
        r = inner(geometry.c_in, geometry.c_out, rank)
        self.contract = replace(self.point, c_out=r, bias=False).make_conv()
        self.expand = Geometry(r, geometry.c_out).make_conv()
        self.initialise(init)

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int, *, rank: float = 0.25) -> int:
        return inner(c_in, c_out, rank) * (c_in + c_out)

    @classmethod
    def matrix_mult_adds(cls, c_in: int, c_out: int, legacy: Legacy = frozenset(), *, rank: float = 0.25) -> float:
        return cls.count_matrix(c_in, c_out, rank=rank)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.depthwise is None else self.depthwise(x)
        return add_bias(self.expand(self.contract(x)), self.bias)

    def matrix(self) -> Tensor:
        return self.expand.weight[:, :, 0, 0] @ self.contract.weight[:, :, 0, 0]

    def initialise(self, init: str) -> None:
        """Variances 1 / r and 2 / out; as published 2 / r and 2 / out."""
        self.initialise_depthwise(init)
        r = self.contract.out_channels
        nn.init.normal_(self.contract.weight, std=((1 if init == "variance" else 2) / r) ** 0.5)
        nn.init.normal_(self.expand.weight, std=(2 / self.geometry.c_out) ** 0.5)

    @torch.no_grad()
    def matrix_from_dense(self, matrix: Tensor) -> None:
        """The best approximation of rank r, the singular values shared evenly; ranks beyond min(in, out) stay 0."""
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        r = min(self.contract.out_channels, len(s))
        root = s[:r].sqrt()
        for conv in (self.contract, self.expand):
            conv.weight.zero_()
        self.contract.weight[:r, :, 0, 0] = root[:, None] * v[:r]
        self.expand.weight[:, :r, 0, 0] = u[:, :r] * root


class Tied(SeparableSubstitute):
    """y = W^T W x with W (r, out) and r = rank x out: the log's LR. Inputs are repeated out / in times."""

    log_names = {r"LR_([\d.e-]+)": "lr:{0}"}
    compressed = free = ("weight",)
    settings = (1e-6, 1)

    def __init__(self, geometry: Geometry, /, *, rank: RANK = 0.25, init: Init = "variance"):
        super().__init__(geometry, {"rank": rank})
        self.weight = nn.Parameter(torch.empty(inner(geometry.c_in, geometry.c_out, rank), geometry.c_out))
        self.initialise(init)

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        uneven = f"needs out ({geometry.c_out}) to be a multiple of in ({geometry.c_in})"
        return super().unsupported(geometry) or (uneven if geometry.c_out % geometry.c_in else None)

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int, *, rank: float = 0.25) -> int:
        return inner(c_in, c_out, rank) * c_out

    @classmethod
    def matrix_mult_adds(cls, c_in: int, c_out: int, legacy: Legacy = frozenset(), *, rank: float = 0.25) -> float:
        return 2 * cls.count_matrix(c_in, c_out, rank=rank)

    def contract(self) -> Tensor:
        """(r, in): W summed over the repetitions of the input, in place of repeating it."""
        return self.weight.unflatten(1, (-1, self.geometry.c_in)).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.depthwise is None else self.depthwise(x)
        z = self.point.conv(x, self.contract()[:, :, None, None])
        return nn.functional.conv2d(z, self.weight.T[:, :, None, None], self.bias)

    def matrix(self) -> Tensor:
        return self.weight.T @ self.contract()

    def initialise(self, init: str) -> None:
        """Standard deviation s with s^4 = 2 in / (out r (out + r + 1)); as published variance 2 / r.

        The squares of W^T W sum up to out r (out + r + 1) s^4 in expectation, and those of the matrix, sums of entries
        that are uncorrelated, to the same.
        """
        self.initialise_depthwise(init)
        r, c_out = self.weight.shape
        fourth = 2 * self.geometry.c_in / (c_out * r * (c_out + r + 1)) if init == "variance" else (2 / r) ** 2
        nn.init.normal_(self.weight, std=fourth**0.25)
