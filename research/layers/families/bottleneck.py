"""What the log's predecessor put in the place of convolutions: grouping and bottlenecks with BN and ReLU inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, Legacy, Pair, Substitute, area
from research.parameters.signatures import Range

Channels = Annotated[int, Range(least=0), "channels in a group of the k x k convolution; 0 = as `groups` says"]
Groups = Annotated[int, Range(least=1), "its groups, where `channels` is 0"]


class Sequence(Substitute):
    """Convolutions with BN and ReLU between them. A family names their geometries; all is counted from those."""

    linear = False

    def __init__(self, geometry: Geometry, arguments: dict[str, Any], init: str):
        super().__init__(geometry, arguments)
        *firsts, last = self.geometries(geometry, **arguments)
        layers = [(g.make_conv(), nn.BatchNorm2d(g.c_out), nn.ReLU()) for g in firsts]
        self.layers = nn.Sequential(*(module for group in layers for module in group), last.make_conv())
        self.bias = None  # the last convolution has it
        self.initialise(init)

    @classmethod
    def geometries(cls, geometry: Geometry, **own: Any) -> list[Geometry]:
        """The convolutions in order."""
        raise NotImplementedError

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        if geometry.groups != 1:
            return f"needs groups=1, not {geometry.groups}"
        for g in cls.geometries(geometry, **own):
            if g.c_in < 1 or g.c_out < 1 or g.groups < 1 or g.c_in % g.groups or g.c_out % g.groups:
                return f"{g.c_in} to {g.c_out} channels do not divide into {g.groups} groups"
        return None

    @classmethod
    def count_parameters(cls, geometry: Geometry, **own: Any) -> int:
        *firsts, last = cls.geometries(geometry, **own)
        bias = last.c_out if last.bias else 0
        return sum(g.dense + 2 * g.c_out for g in firsts) + last.dense + bias

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        """Multiply-adds of the convolutions; the published code counted nothing for the ReLU between them."""
        total = 0
        for g in cls.geometries(geometry, **own):
            total += g.dense * area(g.output_size(size, legacy))
            size = g.output_size(size)
        return total

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def initialise(self, init: str) -> None:
        """He's variance 2 / (k^2 out / groups), the last so that it passes on in / out of its input's second moment.

        After BN and ReLU that moment is 1/2. As published, groups were left out.
        """
        convs = [module for module in self.layers if isinstance(module, nn.Conv2d)]
        for conv in convs:
            taps, groups = conv.kernel_size[0] * conv.kernel_size[1], conv.groups if init == "variance" else 1
            nn.init.normal_(conv.weight, std=(2 * groups / (taps * conv.out_channels)) ** 0.5)
        if init == "variance":
            last = convs[-1]
            nn.init.normal_(last.weight, std=(2 * self.geometry.c_in / (last.in_channels * last.out_channels)) ** 0.5)
        if convs[-1].bias is not None:
            nn.init.zeros_(convs[-1].bias)


class Bottleneck(Sequence):
    """1x1 to q = out // shrink channels, k x k in groups, 1x1 to out; the log's ConvBx, GyBx, AyBx and DConvBx."""

    log_names = {
        r"ConvB(\d+)": "bottleneck:{0}",
        r"G(\d+)B(\d+)": "bottleneck:{1},channels={0}",
        r"A(\d+)B(\d+)": "bottleneck:{1},groups={0}",
        r"DConvB(\d+)": "bottleneck:{0},channels=1",
    }

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        shrink: Annotated[int, Range(least=1), "output channels over inner channels"] = 2,
        channels: Channels = 0,
        groups: Groups = 1,
        init: Init = "variance",
    ):
        super().__init__(geometry, {"shrink": shrink, "channels": channels, "groups": groups}, init)

    @classmethod
    def geometries(cls, geometry: Geometry, shrink: int = 2, channels: int = 0, groups: int = 1) -> list[Geometry]:
        q = geometry.c_out // shrink
        middle = replace(geometry, c_in=q, c_out=q, groups=q // channels if channels else groups, bias=False)
        return [Geometry(geometry.c_in, q), middle, Geometry(q, geometry.c_out, bias=geometry.bias)]


class GroupedFirst(Sequence):
    """k x k in groups, then 1x1; the log's DConv, DConvGy and DConvAy."""

    log_names = {"DConv": "dconv:1", r"DConvG(\d+)": "dconv:{0}", r"DConvA(\d+)": "dconv:0,groups={0}"}

    def __init__(self, geometry: Geometry, /, *, channels: Channels = 1, groups: Groups = 1, init: Init = "variance"):
        super().__init__(geometry, {"channels": channels, "groups": groups}, init)

    @classmethod
    def geometries(cls, geometry: Geometry, channels: int = 1, groups: int = 1) -> list[Geometry]:
        c = geometry.c_in
        first = replace(geometry, c_out=c, groups=c // channels if channels else groups, bias=False)
        return [first, Geometry(c, geometry.c_out, bias=geometry.bias)]


class Corners(Substitute):
    """2 x 2 with twice the dilation in place of 3 x 3: its four corners; the log's Conv2x2."""

    log_names = {"Conv2x2": "conv2x2"}
    free = ("weight",)

    def __init__(self, geometry: Geometry, /, *, init: Init = "variance"):
        super().__init__(geometry)
        self.corners = self.dilated(geometry)
        self.weight = nn.Parameter(torch.empty(self.corners.weight_shape))
        self.initialise(init)

    @staticmethod
    def dilated(geometry: Geometry) -> Geometry:
        return replace(geometry, kernel=(2, 2), dilation=tuple(2 * d for d in geometry.dilation))

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        k = geometry.kernel
        return None if k == (3, 3) else f"needs a 3x3 kernel, not {k[0]}x{k[1]}"

    @classmethod
    def count_parameters(cls, geometry: Geometry) -> int:
        return cls.dilated(geometry).dense + (geometry.c_out if geometry.bias else 0)

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset()) -> float:
        corners = cls.dilated(geometry)
        return corners.dense * area(corners.output_size(size, legacy))

    def forward(self, x: Tensor) -> Tensor:
        return self.corners.conv(x, self.weight, self.bias)

    def kernel(self) -> Tensor:
        kernel = self.weight.new_zeros(self.geometry.weight_shape)
        kernel[:, :, ::2, ::2] = self.weight
        return kernel

    def initialise(self, init: str) -> None:
        nn.init.normal_(self.weight, std=(2 / (4 * self.geometry.c_out)) ** 0.5)

    @torch.no_grad()
    def from_dense(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight.copy_(weight[:, :, ::2, ::2])
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


class AcrossChannels(Substitute):
    """Depthwise k x k, BN, ReLU, then a 3-D convolution that slides over channels, averaged over them: DConv3D."""

    log_names = {"DConv3D": "dconv3d"}
    linear = False

    def __init__(self, geometry: Geometry, /, *, init: Init = "variance"):
        super().__init__(geometry)
        self.depthwise = self.first(geometry).make_conv()
        self.bn = nn.BatchNorm2d(geometry.c_in)
        self.relu = nn.ReLU()
        self.across = nn.Parameter(torch.empty(geometry.c_out, 3))
        self.initialise(init)

    @staticmethod
    def first(geometry: Geometry) -> Geometry:
        return replace(geometry, c_out=geometry.c_in, groups=geometry.c_in, bias=False)

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        return f"needs groups=1, not {geometry.groups}" if geometry.groups != 1 else None

    @classmethod
    def count_parameters(cls, geometry: Geometry) -> int:
        bias = geometry.c_out if geometry.bias else 0
        return cls.first(geometry).dense + 2 * geometry.c_in + 3 * geometry.c_out + bias

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset()) -> float:
        depthwise = cls.first(geometry).dense * area(geometry.output_size(size, legacy))
        across = 0 if "conv3d" in legacy else 3 * geometry.c_out * geometry.c_in
        return depthwise + across * area(geometry.output_size(size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.depthwise(x)))
        # the mean over the channels of (N, out, in, H, W) without making that tensor: a tap sums all channels but the
        # one that it slides past
        total = x.sum(1)
        taps = torch.stack((total - x[:, -1], total, total - x[:, 0]), 1)  # (N, 3, H, W)
        return nn.functional.conv2d(taps, self.across[:, :, None, None] / self.geometry.c_in, self.bias)

    def initialise(self, init: str) -> None:
        """He's variances; the mean over channels shrinks the output as it does in the published code."""
        g = self.geometry
        nn.init.normal_(self.depthwise.weight, std=(2 / (g.taps * (g.c_in if init == "reference" else 1))) ** 0.5)
        nn.init.normal_(self.across, std=(2 / (3 * g.c_out)) ** 0.5)
