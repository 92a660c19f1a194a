"""Networks of DARTS cells: Liu et al., "DARTS: Differentiable Architecture Search" (ICLR 2019), for CIFAR and ImageNet.

Cells are stacked; at one and two thirds of the depth there is a reduction cell, from which on channels are doubled.
Each cell reads the outputs of the two before it, brought to its own width (and size) first. What DARTS calls a
separable or dilated convolution is one unit here, ``Separable``, which another layer can replace as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from research.layers.base import Geometry
from research.layers.drop_path import DropPath
from research.layers.families.grouped import Separable
from research.models.genotype import CellPlan, Genotype, genotype_of
from research.parameters.signatures import Range

GenotypeText = Annotated[str | Mapping, "DARTS_V2, or a genotype's normal, normal_concat, reduce, reduce_concat"]
Layers = Annotated[int, Range(least=3), "cells; those at one and two thirds of them reduce"]


def separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> Separable:
    """A depthwise and a 1x1 convolution that keep the size of the map, with PyTorch's own initial values."""
    padding = dilation * (kernel - 1) // 2
    sizes = ((n, n) for n in (kernel, stride, padding, dilation))
    unit = Separable(Geometry(channels, channels, *sizes))
    unit.depthwise.reset_parameters()
    unit.pointwise.reset_parameters()
    return unit


class FactorizedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, one on the map shifted by a pixel along both axes, and batch norm."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.conv2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.bn(torch.cat([self.conv1(x), self.conv2(x[:, :, 1:, 1:])], dim=1))


def pointwise(c_in: int, c_out: int) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch norm."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """The operation ``name`` of a genotype."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    kind, kernel = name[:3], int(name[-1])
    units = [(stride, 2)] if kind == "dil" else [(stride, 1), (1, 1)]
    layers = [[nn.ReLU(), separable(channels, kernel, *unit), nn.BatchNorm2d(channels)] for unit in units]
    return nn.Sequential(*sum(layers, []))


class Cell(nn.Module):
    """Nodes of two operations each, on the outputs of the two cells before (N, c_before2 | c_before, H, W)."""

    def __init__(self, plan: CellPlan, c_before2: int, c_before: int, c: int, reduction: bool, halve_first: bool):
        super().__init__()
        self.reduction = reduction
        self.preprocess0 = FactorizedReduction(c_before2, c) if halve_first else pointwise(c_before2, c)
        self.preprocess1 = pointwise(c_before, c)
        self.sources = [source for _, source in plan.operations]
        self.concat = plan.concat
        self.operations = nn.ModuleList(
            operation(name, c, stride=2 if reduction and source < 2 else 1) for name, source in plan.operations
        )
        self.drop_path = DropPath()

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        branches = list(zip(self.operations, self.sources, strict=True))
        for first, second in zip(branches[::2], branches[1::2], strict=True):
            states.append(self.branch(states, *first) + self.branch(states, *second))
        return torch.cat([states[node] for node in self.concat], dim=1)

    def branch(self, states: list[Tensor], op: nn.Module, source: int) -> Tensor:
        y = op(states[source])
        return y if isinstance(op, nn.Identity) else self.drop_path(y)


class CifarStem(nn.Module):
    """A 3x3 convolution to 3 C channels and batch norm; both inputs of the first cell."""

    halves = False

    def __init__(self, in_channels: int, C: int):
        super().__init__()
        self.channels = 3 * C
        self.conv = nn.Conv2d(in_channels, self.channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(self.channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn(self.conv(x))
        return x, x


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2; the first cell reads the map after two of them and that after all."""

    halves = True

    def __init__(self, in_channels: int, C: int):
        super().__init__()
        self.channels = C
        self.relu = nn.ReLU()
        for i, (c_in, c_out) in enumerate([(in_channels, C // 2), (C // 2, C), (C, C)], start=1):
            self.add_module(f"conv{i}", nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return quarter, self.bn3(self.conv3(self.relu(quarter)))


def auxiliary_head(c_in: int, num_classes: int, pool_stride: int, second_bn: bool) -> nn.Sequential:
    """Logits from a map (N, c_in, H, W), which the pooling makes 2x2 for images of the published size."""
    bn = [nn.BatchNorm2d(768)] if second_bn else []
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, pool_stride, count_include_pad=False),
        nn.Conv2d(c_in, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        *bn,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),  # of images larger than those the network is known for
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


class Darts(nn.Module):
    """A stem, ``layers`` cells of C channels a node at first, global average pooling and a linear layer.

    All layers start as PyTorch has them. The auxiliary head, on the second reduction cell, is absent until
    :meth:`add_auxiliary_head`; while training its logits (N, classes) are left in ``auxiliary_logits``.
    """

    kept_layers = ("stem", "auxiliary_head")  # substitutes replace the others

    def __init__(self, stem: CifarStem | ImageNetStem, genotype: Genotype, C: int, layers: int, num_classes: int):
        super().__init__()
        self.stem = stem
        self.cells = nn.ModuleList()
        c_before2 = c_before = stem.channels
        halved = stem.halves
        for i in range(layers):
            reduction = i in (layers // 3, 2 * layers // 3)
            C *= 1 + reduction
            plan = genotype.reduce if reduction else genotype.normal
            self.cells.append(Cell(plan, c_before2, c_before, C, reduction, halve_first=halved))
            c_before2, c_before, halved = c_before, C * len(plan.concat), reduction
            if reduction:
                self.second_reduction, self.auxiliary_channels = i, c_before
        self.auxiliary_head: nn.Module | None = None
        self.auxiliary_logits: Tensor | None = None
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_before, num_classes)

    def add_auxiliary_head(self) -> None:
        """Give the network its auxiliary head, with new weights; images must not be smaller than published."""
        imagenet = isinstance(self.stem, ImageNetStem)  # without batch norm after its last convolution, as released
        head = auxiliary_head(
            self.auxiliary_channels, self.classifier.out_features, 2 if imagenet else 3, second_bn=not imagenet
        )
        self.auxiliary_head = head.to(self.classifier.weight.device)

    def attention_taps(self) -> list[str]:
        """The cells whose outputs the reduction cells read."""
        return [f"cells.{i - 1}" for i, cell in enumerate(self.cells) if cell.reduction]

    def forward(self, x: Tensor) -> Tensor:
        s0, s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if i == self.second_reduction and self.training and self.auxiliary_head is not None:
                self.auxiliary_logits = self.auxiliary_head(s1)
        return self.classifier(self.pool(s1).flatten(1))


def darts(
    num_classes: int = 10,
    input_shape: tuple[int, ...] = (3, 32, 32),
    /,
    *,
    C: Annotated[int, Range(least=2), "channels of a node in the first cells"] = 36,
    layers: Layers = 20,
    genotype: GenotypeText = "DARTS_V2",
) -> Darts:
    """The network for small images."""
    return Darts(CifarStem(input_shape[0], C), genotype_of(genotype), C, layers, num_classes)


def darts_imagenet(
    num_classes: int = 1000,
    input_shape: tuple[int, ...] = (3, 224, 224),
    /,
    *,
    C: Annotated[int, Range(least=2), "channels of a node in the first cells"] = 48,
    layers: Layers = 14,
    genotype: GenotypeText = "DARTS_V2",
) -> Darts:
    """The network whose stem makes an image eight times smaller."""
    return Darts(ImageNetStem(input_shape[0], C), genotype_of(genotype), C, layers, num_classes)
