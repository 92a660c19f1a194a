"""The first masks of a network: at random, or those that another run ended with, their places kept or shuffled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from research.errors import UsageError
from research.layers.masked import MASK, masked_weights

Shuffle = Literal["none", "layer", "inputs", "outputs"]


def random_mask(shape: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """A mask with ``count`` ones at uniformly random positions."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:count]] = True
    return mask


def shuffled(mask: Tensor, within: Shuffle, generator: torch.Generator) -> Tensor:
    """``mask`` (bool) with its places drawn anew; as many units are active as before.

    ``within`` says what else is kept: nothing but the number of the ``layer``; the number of each of its ``inputs``
    (places along the first dimension of every column), or of each of its ``outputs`` (places inside every row).
    """
    if within == "none":
        return mask
    if within == "layer":
        lines, dimension = mask.reshape(1, -1), 1
    elif within == "outputs":
        lines, dimension = mask.reshape(len(mask), -1), 1
    else:
        lines, dimension = mask.reshape(len(mask), -1), 0
    order = torch.rand(lines.shape, generator=generator, dtype=torch.float64).argsort(dimension)
    return lines.cpu().gather(dimension, order).reshape(mask.shape).to(mask.device)


@torch.no_grad()
def copy_masks(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: str,
    shuffle: Shuffle = "none",
    generator: Callable[[str], torch.Generator] = lambda name: torch.Generator(),
) -> None:
    """Give every sparse tensor of ``model`` the mask that it has among ``tensors``, which come from ``origin``.

    ``shuffle`` draws the places anew (:func:`shuffled`), with the ``generator`` of each tensor by its name.

    Raises:
        UsageError: no such masks, or of another granularity.
    """
    for tensor in masked_weights(model):
        mask = tensors.get(tensor.name + MASK)
        if mask is None or mask.shape != tensor.mask.shape:
            there, layer = "none" if mask is None else tuple(mask.shape), tensor.name.removesuffix(".weight")
            raise UsageError(
                f"copy_mask_from={origin}: mask of {layer}: expected {tuple(tensor.mask.shape)}, found {there}"
            )
        tensor.mask.copy_(shuffled(mask, shuffle, generator(tensor.name)))
        tensor.apply()


@torch.no_grad()
def copy_parameters(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Give every parameter of ``model`` the value that it has among ``tensors``, which come from ``origin``.

    Raises:
        UsageError: another network's.
    """
    own = dict(model.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: tensors[n].shape for n in own if n in tensors}:
        raise UsageError(f"copy_init: the network of {origin} is another one")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])
