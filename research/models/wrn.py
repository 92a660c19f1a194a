"""Wide residual networks for small images: Zagoruyko and Komodakis, "Wide Residual Networks" (2016).

WRN-d-k has d = 6n + 4 layers: a 3x3 stem of 16 channels, three groups of n pre-activation blocks with 16k, 32k and
64k channels, batch norm, ReLU, global average pooling and a linear layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from torch import Tensor, nn

from research.errors import UsageError
from research.layers.drop_path import DropPath
from research.parameters.signatures import Range

NAME = re.compile(r"wrn[-_](\d+)[-_](\d+(?:\.\d+)?)")


class Block(nn.Module):
    """BN-ReLU-conv-BN-ReLU-(dropout)-conv, plus the shortcut.

    Where channels change, the activated input feeds both the branch and a 1x1 convolution; otherwise the shortcut is
    the raw input.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = None if c_in == c_out and stride == 1 else nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.bn1(x))
        y = self.conv1(a)
        y = self.drop_path(self.conv2(self.dropout(self.relu(self.bn2(y)))))
        return y + (x if self.shortcut is None else self.shortcut(a))


class WideResNet(nn.Module):
    """WRN-``depth``-``width``.

    Convolutions start normal with variance 2 / (k k out), the linear layer as PyTorch has it with its bias at 0.
    A fractional width gives channels rounded to the nearest integer.
    """

    kept_layers = ("conv1", "*.shortcut")  # substitutes replace the others

    def __init__(self, depth: int, width: float, num_classes: int, in_channels: int, dropout: float = 0.0):
        super().__init__()
        n = (depth - 4) // 6
        c1, c2, c3 = (round(c * width) for c in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.group1 = self._group(16, c1, n, 1, dropout)
        self.group2 = self._group(c1, c2, n, 2, dropout)
        self.group3 = self._group(c2, c3, n, 2, dropout)
        self.bn = nn.BatchNorm2d(c3)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c3, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    @staticmethod
    def _group(c_in: int, c_out: int, n: int, stride: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            Block(c_in, c_out, stride, dropout), *(Block(c_out, c_out, 1, dropout) for _ in range(n - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.group3(self.group2(self.group1(self.conv1(x))))  # (N, 64k, H/4, W/4)
        return self.fc(self.pool(self.relu(self.bn(x))).flatten(1))


def wrn(name: str) -> Callable[..., WideResNet] | None:
    """The constructor of ``wrn-<depth>-<width>`` (also with underscores); ``None`` for a name of another form.

    Raises:
        UsageError: no such network, because depth is not 6n + 4 or the width is 0.
    """
    match = NAME.fullmatch(name)
    if not match:
        return None
    depth, width = int(match[1]), float(match[2])
    if depth < 10 or (depth - 4) % 6:
        nearest = 6 * max(1, round((depth - 4) / 6)) + 4
        raise UsageError(
            f"model={name!r}: depth must be 6n + 4 (10, 16, 22, 28, …); nearest is wrn-{nearest}-{match[2]}"
        )
    if round(16 * width) < 1:
        raise UsageError(f"model={name!r}: width {width:g} leaves no channels; give at least 0.1")

    def construct(
        num_classes: int = 10,
        input_shape: tuple[int, ...] = (3, 32, 32),
        /,
        *,
        dropout: Annotated[float, Range(least=0, below=1), "dropout between the convolutions of a block"] = 0.0,
    ) -> WideResNet:
        return WideResNet(depth, width, num_classes, input_shape[0], dropout)

    return construct
