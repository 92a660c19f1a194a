"""CIFAR ResNets: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.

depth = 6n + 2: a 3x3 stem and three stages of n basic blocks with 16, 32 and 64 channels, global average pooling and a
linear layer. Any image size works; each of stages 2 and 3 halves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from research.layers.drop_path import DropPath

Shortcut = Literal["A", "B"]


class PadShortcut(nn.Module):
    """Option A: the identity, subsampled in space and padded with zero channels. No parameters."""

    def __init__(self, added_channels: int, stride: int):
        super().__init__()
        self.added_channels, self.stride = added_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.added_channels // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.added_channels - before))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and the shortcut around them."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: Shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()
        self.drop_path = DropPath()
        if stride == 1 and c_in == c_out:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(c_out - c_in, stride)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.drop_path(self.bn2(self.conv2(y))) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of ``depth`` = 6n + 2 layers for small images.

    Convolutions start normal with variance 2 / fan_out, gammas at 1; the linear layer as PyTorch has it.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, shortcut: Shortcut = "A"):
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(16, 16, n, 1, shortcut)
        self.layer2 = self._stage(16, 32, n, 2, shortcut)
        self.layer3 = self._stage(32, 64, n, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(c_in: int, c_out: int, n: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
        first = Block(c_in, c_out, stride, shortcut)
        return nn.Sequential(first, *(Block(c_out, c_out, 1, shortcut) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 64, H/4, W/4)
        return self.fc(self.pool(x).flatten(1))


def cifar_resnet(depth: int) -> Callable[..., CifarResNet]:
    """The constructor of the network with ``depth`` layers."""

    def construct(
        num_classes: int = 10,
        input_shape: tuple[int, ...] = (3, 32, 32),
        /,
        *,
        shortcut: Annotated[Shortcut, "where shapes change: A = zero padding (the paper's), B = 1x1 convolution"] = "A",
    ) -> CifarResNet:
        return CifarResNet(depth, num_classes, input_shape[0], shortcut)

    return construct
