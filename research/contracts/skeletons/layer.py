"""my_method: a convolution of low rank, to be changed into a layer of yours.

research train plugin=my_method.py model=resnet8 substitute=my_method:0.5 epochs=2
research check my_method.py
"""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from research.layers.base import Geometry, Init, Legacy, Pair, Substitute, area
from research.parameters.signatures import Range

RANK = Annotated[float, Range(above=0, most=1), "channels between the two convolutions, over those of the output"]


class MyMethod(Substitute):
    """A k x k convolution into a few channels, then a 1x1 convolution to all: kernel = sum over r of U[:, r] V[r]."""

    compressed = ("spatial.weight", "expand.weight")  # whose weight decay is scaled by the compression
    settings = (1e-6, 1)  # of the first argument, between which `substitute=my_method:budget=…` searches

    def __init__(self, geometry: Geometry, /, *, rank: RANK = 0.25, init: Init = "variance"):
        super().__init__(geometry, {"rank": rank})
        r = channels(geometry, rank)
        g = geometry
        self.spatial = nn.Conv2d(g.c_in, r, g.kernel, g.stride, g.padding, g.dilation, bias=False)
        self.expand = nn.Conv2d(r, g.c_out, 1, bias=False)
        self.initialise(init)

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        """Why it cannot stand in for a convolution; none if it can."""
        return f"needs groups=1, not {geometry.groups}" if geometry.groups != 1 else None

    @classmethod
    def count_parameters(cls, geometry: Geometry, *, rank: float = 0.25) -> int:
        bias = geometry.c_out if geometry.bias else 0
        return channels(geometry, rank) * (geometry.c_in * geometry.taps + geometry.c_out) + bias

    @classmethod
    def count_mult_adds(
        cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), *, rank: float = 0.25
    ) -> float:
        per_pixel = channels(geometry, rank) * (geometry.c_in * geometry.taps + geometry.c_out)
        return per_pixel * area(geometry.output_size(size))

    def initialise(self, init: str) -> None:
        """Keep the variance of what passes: 2 / (inputs of a unit) after a ReLU, then 1 / rank."""
        nn.init.normal_(self.spatial.weight, std=(2 / (self.geometry.c_in * self.geometry.taps)) ** 0.5)
        nn.init.normal_(self.expand.weight, std=self.expand.in_channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.spatial(x))
        return y if self.bias is None else y + self.bias[:, None, None]

    def kernel(self) -> Tensor:
        """The kernel (out, in, kh, kw) of the one convolution that both are."""
        return (self.expand.weight[:, :, 0, 0] @ self.spatial.weight.flatten(1)).view(self.geometry.weight_shape)


def channels(geometry: Geometry, rank: float) -> int:
    """Channels between the two convolutions."""
    return max(1, int(rank * geometry.c_out))


LAYERS = {"my_method": MyMethod}
