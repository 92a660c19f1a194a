"""The CIFAR networks of NN-Mass with random long-range links: Bhardwaj, Li and Marculescu (2021, arXiv 1910.00780).

A network is a few cells. Cell k (from 0) has d layers of w = 16 wm 2^k channels and halves the resolution, but for the
first. Layer l reads the w channels of layer l-1 and, concatenated, t_l channels picked at random from layers 0 .. l-2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from research.errors import UsageError
from research.measures.nn_mass import Cell
from research.parameters.signatures import Range

LINK_SEED = 2  # of every network, as published: both architectures have the same links


class DenseCell(nn.Module):
    """A cell: its layers, one batch norm each, and the links of layer l in the int64 buffer ``links_l``.

        s_0 = norm_0(layer_0(x)),  s_1 = norm_1(layer_1(relu(s_0))),  s_l = layer_l(relu(norm_l(z_l)))

    with z_l = [s_{l-1}, linked channels of s_{l-2}, s_{l-3}, .., s_0]. Returns s_{d-1}, (N, w, H, W).

    With ``as_released``, links index [s_{l-1}, .., s_0] instead, as in the published code: they repeat channels of
    layer l-1 and never reach layer 0. And layers without links skip their norm, which then learns nothing.
    """

    def __init__(self, cell: Cell, layers: Sequence[nn.Module], links: Sequence[Sequence[int]], as_released: bool):
        super().__init__()
        self.as_released = as_released
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.BatchNorm2d(cell.width + t) for t in cell.links)
        for i in range(2, cell.depth):
            self.register_buffer(f"links_{i}", torch.tensor(links[i], dtype=torch.int64))
            if as_released and not links[i]:
                self.norms[i].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.norms[0](self.layers[0](x))
        states = [s, self.norms[1](self.layers[1](s.relu()))]
        for i, (layer, norm) in enumerate(zip(self.layers[2:], self.norms[2:], strict=True), start=2):
            links = getattr(self, f"links_{i}")
            if len(links):
                pool = torch.cat(states[::-1] if self.as_released else states[-2::-1], dim=1)
                z = norm(torch.cat([states[-1], pool.index_select(1, links)], dim=1))
            else:
                z = states[-1] if self.as_released else norm(states[-1])
            states.append(layer(z.relu()))
        return states[-1]


class DenseCNN(nn.Module):
    """Cells, average pooling 2x2, linear. Layers start as PyTorch's.

    With ``frozen_bn``, batch norm always runs in evaluation mode: with its first statistics, mean 0 and variance 1, it
    is affine only.
    """

    def __init__(
        self, cells: Sequence[Cell], stages: Sequence[DenseCell], features: int, num_classes: int, frozen_bn: bool
    ):
        super().__init__()
        self.cells = tuple(cells)
        self.cell_densities = tuple(cell.density for cell in cells)
        self.nn_mass, self.nn_density = sum(cell.mass for cell in cells), fmean(self.cell_densities)
        self.frozen_bn = frozen_bn
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(features, num_classes)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.stages(x)).flatten(1))

    def train(self, mode: bool = True) -> DenseCNN:
        super().train(mode)
        for module in self.modules():
            if self.frozen_bn and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


def _separable(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """1x1 to c_out channels, depthwise 3x3, 1x1; batch norm after each, ReLU between."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
        nn.Conv2d(c_out, c_out, 3, stride, padding=1, groups=c_out, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
        nn.Conv2d(c_out, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
    )


def _dense_cnn(layer: Callable[..., nn.Module]) -> Callable[..., DenseCNN]:
    """The constructor of networks of ``layer(c_in, c_out, stride)``; the very first is a plain convolution always."""

    def construct(
        num_classes: int = 10,
        input_shape: tuple[int, ...] = (3, 32, 32),
        /,
        *,
        wm: Annotated[int, Range(least=1), "width: cell k has 16 wm 2^k channels"] = 2,
        num_cells: Annotated[int, Range(least=1), "cells; each after the first halves the resolution"] = 3,
        cell_depth: Annotated[int, Range(least=3), "layers of a cell"] = 13,
        tc: Annotated[
            int | tuple[int, ...], Range(least=0), "most long-range links that a layer reads, in every cell or of each"
        ] = (40, 80, 125),
        compat: Annotated[
            Literal["none", "reference"], "reference = links and norms as in the published code, which strays from it"
        ] = "none",
        frozen_bn: Annotated[bool, "batch norm never uses statistics of the batch, as in the published code"] = False,
    ) -> DenseCNN:
        """The NN-Mass network of cells for images of any size."""
        caps = [tc] * num_cells if isinstance(tc, int) else tc
        if len(caps) != num_cells:
            raise UsageError(f"tc={list(caps)}: expected one number, or {num_cells}, one a cell")
        cells = [Cell(16 * wm * 2**k, cell_depth, cap) for k, cap in enumerate(caps)]
        c_in, height, width = input_shape
        rng, stages = random.Random(LINK_SEED), []
        for k, cell in enumerate(cells):
            w = cell.width
            if k == 0:
                first = _conv(c_in, w)
            else:
                first = layer(w // 2, w, stride=2)
                height, width = -(-height // 2), -(-width // 2)
            layers = [first, *(layer(w + t, w) for t in cell.links[1:])]
            stages.append(DenseCell(cell, layers, cell.draw(rng), compat == "reference"))
        if min(height, width) < 2:
            least = 2 ** (num_cells - 1) + 1
            raise UsageError(
                f"images of {input_shape[1:]} are too small: {num_cells} cells need at least {least} pixels"
            )
        return DenseCNN(cells, stages, w * (height // 2) * (width // 2), num_classes, frozen_bn)

    return construct


regular_dense = _dense_cnn(_conv)
dense_depth = _dense_cnn(_separable)
