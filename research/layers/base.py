"""What may stand in the place of a convolution: its geometry, the contract of a substitute, and separable substitutes.

Legend: N batch, C channels, H and W height and width, k kernel side, dw = depthwise k x k convolution. Sizes are
(height, width). A count of mult-adds is for one input (batch 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from research.errors import UsageError

Pair = tuple[int, int]
Init = Annotated[
    Literal["variance", "reference"],
    "initial values: variance of the dense convolution's output kept, or as the published code has it",
]
Legacy = frozenset[str]
"""Counting as the log did at some time: any of the keys of ``research.measures.cost.LEGACY``."""


@dataclass(frozen=True)
class Geometry:
    """The convolution that is replaced: everything but its weights."""

    c_in: int
    c_out: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """The geometry of a ``Conv2d``, of a ``Linear`` (as a 1x1 convolution), or of a substitute.

        Raises:
            UsageError: another module, or a convolution that pads with anything but a fixed number of zeros.
        """
        if isinstance(layer, Substitute):
            return layer.geometry
        if isinstance(layer, nn.Linear):
            return cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        if type(layer) is not nn.Conv2d:
            raise UsageError(f"{type(layer).__name__}: expected a Conv2d, a Linear or a substitute")
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise UsageError(f"Conv2d with padding={layer.padding!r}, {layer.padding_mode}: expected numbers of zeros")
        return cls(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias is not None,
        )

    @property
    def taps(self) -> int:
        """Kernel height times width."""
        return self.kernel[0] * self.kernel[1]

    @property
    def dense(self) -> int:
        """Weights of the convolution itself, without its bias."""
        return self.c_out * self.c_in // self.groups * self.taps

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.c_out, self.c_in // self.groups, *self.kernel

    def output_size(self, size: Pair, legacy: Legacy = frozenset()) -> Pair:
        """Height and width of the output for an input of ``size``; the log's early formula ignored dilation."""
        dilation = (1, 1) if "dilation" in legacy else self.dilation
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, dilation, strict=True)
        )

    def depthwise(self) -> Geometry | None:
        """The k x k convolution of each input channel that a separable substitute begins with; none for k = 1."""
        return None if self.taps == 1 else replace(self, c_out=self.c_in, groups=self.c_in, bias=False)

    def pointwise(self) -> Geometry:
        """The 1x1 convolution after it, which takes stride and padding where there is no depthwise one."""
        return self if self.taps == 1 else Geometry(self.c_in, self.c_out, bias=self.bias)

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve ``x`` (N, c_in, H, W) with ``weight`` of :attr:`weight_shape`."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def make_conv(self) -> nn.Conv2d:
        """A ``Conv2d`` of this geometry, with PyTorch's own initial values."""
        return nn.Conv2d(
            self.c_in, self.c_out, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.bias
        )


class Substitute(nn.Module):
    """A layer in the place of a convolution.

    A family is a subclass, a file and a line in ``LAYERS``. Its constructor is ``(geometry, /, *, own arguments,
    init)``; the own arguments are what a user may give, checked from their annotations, and the first is the one that
    ``"family:value"`` sets and that a budget is met with. It sets :attr:`geometry` and :attr:`bias` through
    ``super().__init__``, makes its parameters, and gives them their values in :meth:`initialise`.

    Everything that is counted is counted from the geometry alone, before anything is built.
    """

    log_names: ClassVar[Mapping[str, str]] = {}
    """Names in the research log -> specs: a regular expression -> the spec, with ``{0}``, … for its groups."""

    compressed: ClassVar[tuple[str, ...]] = ()
    """The own parameters whose weight decay is scaled by the compression ratio; dotted names reach into children."""

    free: ClassVar[tuple[str, ...]] = ()
    """Parameters whose entries are weights on their own, so that sparse training may mask them; as names of
    :attr:`compressed`. The convolutions inside that a layer is made of are found without it."""

    settings: ClassVar[tuple[float, float] | None] = None
    """Least and largest value of the first own argument between which a budget is searched; sizes must be monotone."""

    linear: ClassVar[bool] = True
    """Whether the layer is a convolution with :meth:`kernel`; not so where there are nonlinearities inside."""

    def __init__(self, geometry: Geometry, arguments: Mapping[str, Any] | None = None):
        super().__init__()
        if reason := self.unsupported(geometry, **(arguments or {})):
            raise UsageError(f"{type(self).__name__} in place of {geometry}: {reason}")
        self.geometry = geometry
        self.arguments = dict(arguments or {})
        self.bias = nn.Parameter(torch.zeros(geometry.c_out)) if geometry.bias else None

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        """Why this family cannot stand in for such a convolution; ``None`` if it can."""
        return None

    @classmethod
    def count_parameters(cls, geometry: Geometry, **own: Any) -> int:
        """Exact number of parameters, bias included. ``own`` are the constructor's own arguments, without ``init``."""
        raise NotImplementedError

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        """Multiply-adds for one input of ``size`` (height, width); biases are not counted."""
        raise NotImplementedError

    def initialise(self, init: str) -> None:
        """Draw initial values from torch's global generator, by the rule ``init``."""
        raise NotImplementedError

    def kernel(self) -> Tensor:
        """The equivalent dense kernel, (out, in / groups, kh, kw): same stride, padding, dilation, groups and bias."""
        raise NotImplementedError

    @torch.no_grad()
    def from_dense(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Start from a trained convolution: the parameters whose :meth:`kernel` is closest to ``weight``.

        Raises:
            UsageError: the family has no such parameters.
        """
        raise UsageError(f"{type(self).__name__}: has no kernel closest to a given one; leave from_dense out")

    def extra_repr(self) -> str:
        g = self.geometry
        own = "".join(f", {name}={value}" for name, value in self.arguments.items())
        return f"{g.c_in}, {g.c_out}, kernel={g.kernel}, stride={g.stride}{own}"


class SeparableSubstitute(Substitute):
    """A dense depthwise k x k convolution (none for k = 1), then a 1x1 convolution with a compressed :meth:`matrix`.

    Stride, padding and dilation are those of the depthwise convolution where there is one. A family says how the
    matrix is made, and what it costs.
    """

    def __init__(self, geometry: Geometry, arguments: Mapping[str, Any] | None = None):
        super().__init__(geometry, arguments)
        self.point = geometry.pointwise()
        dw = geometry.depthwise()
        self.depthwise = dw.make_conv() if dw else None

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        return f"needs groups=1, not {geometry.groups}" if geometry.groups != 1 else None

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int, **own: Any) -> int:
        """Parameters of the compressed matrix."""
        raise NotImplementedError

    @classmethod
    def matrix_mult_adds(cls, c_in: int, c_out: int, legacy: Legacy = frozenset(), **own: Any) -> float:
        """Multiply-adds of the compressed 1x1 convolution at one pixel; by default those of a dense one."""
        return c_in * c_out

    @classmethod
    def count_parameters(cls, geometry: Geometry, **own: Any) -> int:
        dw = geometry.depthwise()
        bias = geometry.c_out if geometry.bias else 0
        return (dw.dense if dw else 0) + cls.count_matrix(geometry.c_in, geometry.c_out, **own) + bias

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        dw = geometry.depthwise()
        spatial = dw.dense * area(geometry.output_size(size, legacy)) if dw else 0
        pixels = area(geometry.output_size(size))
        return spatial + cls.matrix_mult_adds(geometry.c_in, geometry.c_out, legacy, **own) * pixels

    def matrix(self) -> Tensor:
        """The matrix of the 1x1 convolution, (out, in)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.depthwise is None else self.depthwise(x)
        return self.point.conv(x, self.matrix().reshape(self.point.weight_shape), self.bias)

    def kernel(self) -> Tensor:
        matrix = self.matrix()[:, :, None, None]
        return matrix if self.depthwise is None else matrix * self.depthwise.weight[None, :, 0]

    def initialise_depthwise(self, init: str) -> None:
        """With ``variance``: variance 1 / k^2, a gain of one; the published networks give it 2 / (k^2 in)."""
        if self.depthwise is not None:
            taps = self.geometry.taps
            std = taps**-0.5 if init == "variance" else (2 / (taps * self.geometry.c_in)) ** 0.5
            nn.init.normal_(self.depthwise.weight, std=std)

    @torch.no_grad()
    def from_dense(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Split ``weight`` (out, in, kh, kw), channel by channel, into its best depthwise and pointwise factors.

        Each input channel's (out, k k) slice gets its best approximation of rank one (Eckart-Young); the matrix of
        pointwise factors goes on to :meth:`matrix_from_dense`. The singular values stay with the matrix.
        """
        matrix = weight[:, :, 0, 0]
        if self.depthwise is not None:
            u, s, v = torch.linalg.svd(weight.flatten(2).transpose(0, 1), full_matrices=False)  # (in, out, kk)
            matrix = (u[:, :, 0] * s[:, :1]).T
            self.depthwise.weight.copy_(v[:, 0].view_as(self.depthwise.weight))
        self.matrix_from_dense(matrix)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def matrix_from_dense(self, matrix: Tensor) -> None:
        """Set the parameters so that :meth:`matrix` is as close to ``matrix`` (out, in) as the family knows."""
        super().from_dense(matrix)  # refuses


def units(model: nn.Module, name: str = "", known: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Every module by its first name, in order; without what is inside a substitute or makes a parametrized weight."""
    known = set() if known is None else known
    if model in known:
        return
    known.add(model)
    yield name, model
    if not (isinstance(model, Substitute) or is_parametrized(model)):
        for child, module in model.named_children():
            yield from units(module, f"{name}.{child}" if name else child, known)


def area(size: Pair) -> int:
    return size[0] * size[1]


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """``y`` (N, C, H, W) plus ``bias`` (C,)."""
    return y if bias is None else y + bias[:, None, None]
