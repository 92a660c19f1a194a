"""Grouped and separable convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, SeparableSubstitute


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

    def initialise(self, init: str) -> None:
        self.initialise_depthwise(init)
        nn.init.normal_(self.pointwise.weight, std=(2 / self.geometry.c_out) ** 0.5)

    @torch.no_grad()
    def matrix_from_dense(self, matrix: Tensor) -> None:
        self.matrix().copy_(matrix)
