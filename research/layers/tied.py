"""Tied weights: N weights of a layer share B < N free values through a fixed random map.

HashedNets (Chen et al. 2015, arXiv 1504.04788) without their sign, and used evenly, as Mostafa and Wang 2019 (arXiv
1902.05967) compare sparse training with:

    W = bank[index]        dL/dbank[b] = sum of dL/dW over the uses of b

What is tied is a *unit*: a single weight, or a whole k x k slice of a convolution's kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def bank_size(units: int, sparsity: float) -> int:
    """B = round((1 - s) N), but at least one value."""
    return max(1, round((1 - sparsity) * units))


def balanced_index(units: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """A random map of ``units`` to a bank of ``size`` rows: (units,) int32, every row used floor or ceil(N/B) times.

    A random permutation of the units receives 0, 1, ..., B - 1, 0, 1, ... in turn.
    """
    index = torch.empty(units, dtype=torch.int32)
    index[torch.randperm(units, generator=generator)] = torch.arange(units, dtype=torch.int32) % size
    return index


class Bank(nn.Module):
    """The weight of a layer as a function of its bank; a parametrization (``torch.nn.utils.parametrize``).

    Args:
        shape: of the weight; its units follow each other in row-major order.
        index: (units,) int32, the row of the bank that every unit uses; all rows in use.

    The bank is (B, weights in a unit). Its first values are those that the layer's own initialisation gave to the first
    unit of each row, so that they are drawn from the same distribution.
    """

    index: Tensor

    def __init__(self, shape: torch.Size, index: Tensor):
        super().__init__()
        self.shape, self.width = shape, math.prod(shape) // len(index)
        # Of single weights, not of units: torch gathers and sums up scalars ten times as fast as rows.
        within = torch.arange(self.width, dtype=torch.int32, device=index.device)
        self.register_buffer("index", (index[:, None] * self.width + within).flatten())

    def forward(self, bank: Tensor) -> Tensor:
        return bank.flatten().index_select(0, self.index).view(self.shape)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        values = int(self.index.max()) + 1
        place = torch.arange(len(self.index), device=weight.device)
        first = place.new_empty(values).scatter_reduce_(0, self.index.long(), place, "amin", include_self=False)
        return weight.flatten()[first].view(-1, self.width)


def tie(layer: nn.Module, index: Tensor) -> None:
    """Tie ``layer.weight`` by ``index``; its bank is ``layer.parametrizations.weight.original``."""
    parametrize.register_parametrization(layer, "weight", Bank(layer.weight.shape, index.to(layer.weight.device)))


def free_parameter(module: nn.Module, name: str) -> nn.Parameter:
    """What is trained of the weight ``name`` of ``module``, such as ``contract.weight``: its bank where it is tied."""
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    return owner.parametrizations[own].original if parametrize.is_parametrized(owner, own) else owner.get_parameter(own)
