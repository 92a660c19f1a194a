"""The first masks of a network: at random, or those that another run ended with, their places kept or shuffled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from research.errors import UsageError
from research.hooks.sparse.distributions import uniform_count
from research.layers.masked import MASK, Masked, attach_mask, choose, masked_weights

Shuffle = Literal["none", "layer", "inputs", "outputs"]


def random_mask(shape: Sequence[int], count: int, generator: torch.Generator | None = None) -> Tensor:
    """A mask with ``count`` ones at uniformly random positions."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:count]] = True
    return mask


def sparsify(
    model: nn.Module, sparsity: float, generator: torch.Generator | None = None, only: str = "", keep: str = ""
) -> list[Masked]:
    """Make the weights of ``model`` that :func:`~research.layers.masked.choose` chooses sparse, for any loop.

    Each gets a random mask with the share ``sparsity`` of zeros, and its gradient is 0 outside the mask, whatever the
    mask is by then, as soon as backward has it: a new optimizer then keeps the weight so. Call it once memory format
    and device are final, before DDP; ranks need generators of one seed, here and where they grow.

    Raises:
        UsageError: not 0 <= sparsity < 1, or as :func:`~research.layers.masked.choose`.
    """
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity={sparsity}: must be >= 0 and < 1")
    for site in choose(model, only, keep).sparse.values():
        count = uniform_count(site.weight.numel(), sparsity)
        attach_mask(site.owner, random_mask(site.weight.shape, count, generator), site.parameter)
    tensors = masked_weights(model)
    for tensor in tensors:
        tensor.weight.register_post_accumulate_grad_hook(partial(_mask_gradient, tensor.broadcast))
    return tensors


def _mask_gradient(mask: Tensor, weight: Tensor) -> None:
    weight.grad.masked_fill_(~mask, 0.0)


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
