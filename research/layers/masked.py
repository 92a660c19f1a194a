"""Sparse weights: dense storage W beside a boolean mask, with W zero wherever the mask is.

The invariant W * mask = W is kept in place: by masking what changes W (its gradient) instead of W itself. Forward and
backward are those of the plain layer, and evaluation, averages and export see the sparse weights without knowing.

A unit is one entry of the mask, whose shape is the first g dimensions of the weight's ("granularity"): with g = 4 a
single weight of a convolution (O, I, kh, kw), 3 a kernel row, 2 a kernel slice, 1 an output filter. In matrices a unit
is always one weight. N units, M of them active. Units are numbered in the memory order of the mask: row-major, and
(O, kh, kw, I) for the single weights of a convolution in channels_last.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from research.errors import UsageError, nearest

MASK = "weight_mask"  # the buffer beside a module's weight
SHORTCUTS = ("*shortcut*", "*downsample*", "*skip*")
CHEAP = 0.02  # a classifier with less of a convolutional network's weights than this stays dense


class Masked:
    """One sparse tensor: ``weight`` (float), its ``mask`` (bool), and the list of its active units."""

    def __init__(self, weight: Tensor, mask: Tensor, name: str = ""):
        self.weight, self.mask, self.name = weight, mask, name
        self._order = sorted(range(weight.ndim), key=lambda d: (-weight.stride(d), d))  # dimensions, largest step first
        self._broadcast = mask.reshape(*mask.shape, *[1] * (weight.ndim - mask.ndim))
        self._elementwise = mask.ndim == weight.ndim
        self._flat_mask = self.flat(mask)
        self._flat_weight = self.flat(weight.detach()) if self._elementwise else None

    @property
    def units(self) -> int:
        """N."""
        return self.mask.numel()

    @property
    def unit_size(self) -> int:
        """Weights of one unit."""
        return self.weight.numel() // self.units

    @cached_property
    def active(self) -> Tensor:
        """The active units (M,), int64, ascending."""
        return where(self._flat_mask)

    def flat(self, tensor: Tensor) -> Tensor:
        """``tensor``, laid out as the weight or the mask is, as a vector in the order in which units are numbered.

        Raises:
            RuntimeError: it is laid out otherwise.
        """
        return (tensor.permute(self._order) if tensor.ndim == len(self._order) else tensor).view(-1)

    @torch.no_grad()
    def of_active(self, tensor: Tensor) -> Tensor:
        """The values (M,) that ``tensor``, shaped as the mask, has at the active units."""
        return self.flat(tensor).index_select(0, self.active)

    @property
    def inactive(self) -> Tensor:
        """The others (N - M,), int64, ascending; takes time in proportion to N."""
        return where(~self._flat_mask)

    def is_active(self, units: Tensor) -> Tensor:
        """Whether each of ``units`` is active."""
        return self._flat_mask.index_select(0, units)

    def values(self) -> Tensor:
        """The active weights (M,), a copy; for units that are single weights."""
        return self._flat_weight.index_select(0, self.active)

    @torch.no_grad()
    def norm1(self) -> Tensor:
        """The sum of abs(w) over all weights, a scalar."""
        return self.values().abs_().sum() if self._elementwise else self.weight.abs().sum()

    @torch.no_grad()
    def magnitudes(self) -> Tensor:
        """Of every active unit (M,): the mean of abs(w) over its weights."""
        if self._elementwise:
            return self.values().abs_()
        sliced = tuple(range(self.mask.ndim, self.weight.ndim))
        return self.of_active(self.weight.abs().mean(sliced).contiguous())

    @torch.no_grad()
    def write(self, tensor: Tensor, units: Tensor, values: Tensor | float) -> None:
        """Set ``units`` of ``tensor``, shaped as the weight, to a number or to one row of ``values`` each."""
        if self._elementwise:
            (self._flat_weight if tensor is self.weight else self.flat(tensor))[units] = values
        else:
            tensor[torch.unravel_index(units, self.mask.shape)] = values

    @torch.no_grad()
    def change(self, killed: Tensor, grown: Tensor, values: Tensor | float = 0.0) -> None:
        """Deactivate the units ``killed`` and activate ``grown``, with weights ``values``; no other weight moves."""
        self._flat_mask[killed] = False
        self.write(self.weight, killed, 0.0)
        self.write(self.weight, grown, values)
        if self.mask.device.type == "cpu":
            active = self.active.numpy()
            merged = np.concatenate([active[self._flat_mask.numpy()[active]], grown.numpy()])
            merged.sort(kind="stable")  # merges ordered runs: in proportion to M, not to N
            self.active = torch.from_numpy(merged)
        else:
            self.__dict__.pop("active", None)
        self._flat_mask[grown] = True

    @torch.no_grad()
    def masked(self, tensor: Tensor, slope: Tensor | float = 0.0) -> Tensor:
        """A copy of ``tensor + slope * sign(weight)``, shaped as the weight, that is exactly 0 outside the mask."""
        sloped = isinstance(slope, Tensor) or slope != 0
        if not self._elementwise:
            return torch.where(self._broadcast, tensor + slope * self.weight.sign() if sloped else tensor, 0.0)
        out = torch.zeros_like(self.weight, dtype=tensor.dtype)
        kept = tensor.permute(self._order).reshape(-1).index_select(0, self.active)
        if sloped:
            kept += self.values().sign_() * slope
        self.flat(out).scatter_(0, self.active, kept)
        return out

    @torch.no_grad()
    def apply(self) -> None:
        """Restore W = 0 outside the mask, where something else than a masked gradient has moved W."""
        self.weight.masked_fill_(~self._broadcast, 0.0)


def where(flags: Tensor) -> Tensor:
    """The positions, int64, at which a vector of booleans is set."""
    if flags.device.type == "cpu":  # several times faster than torch's there
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero()[:, 0]


def sparse_layers(
    model: nn.Module, only: str = "", keep: str = "", sparse_downsample: bool = False
) -> dict[str, nn.Module]:
    """The Conv2d and Linear modules whose trained weights become sparse, by name, in order of registration.

    ``only`` and ``keep`` are patterns of module names (``"group1.* fc"``), separated by blanks. With ``only`` exactly
    what it matches; otherwise all but those where sparsity saves next to nothing and costs most: the first
    convolution, depthwise convolutions, convolutions of shortcuts (unless ``sparse_downsample``), and a classifier with
    less than 2 % of the weights of a convolutional network. ``keep`` leaves further ones dense.

    Raises:
        UsageError: a pattern matches no such module, or nothing is left.
    """
    found: dict[str, nn.Module] = {}
    weights = set()  # of modules that share one weight the first
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.requires_grad:
            if id(module.weight) not in weights:
                found[name] = module
            weights.add(id(module.weight))
    for pattern in (only + " " + keep).split():
        if not _matches(found, pattern):
            raise UsageError(f"{pattern!r} matches no convolution or linear layer{nearest(pattern, found)}")
    chosen = {name for pattern in only.split() for name in _matches(found, pattern)}
    dense = set() if only else _dense_by_default(found, sparse_downsample)
    dense |= {name for pattern in keep.split() for name in _matches(found, pattern)}
    layers = {name: module for name, module in found.items() if name not in dense and (not only or name in chosen)}
    if not layers:
        raise UsageError("no layer of this network is left to be sparse; give only=… with names of its layers")
    return layers


def _dense_by_default(layers: dict[str, nn.Module], sparse_downsample: bool) -> set[str]:
    convolutions = [name for name, module in layers.items() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        return set()
    dense = {convolutions[0]}
    dense |= {name for name in convolutions if layers[name].groups == layers[name].in_channels > 1}
    if not sparse_downsample:
        dense |= {name for name in convolutions for pattern in SHORTCUTS if fnmatchcase(name, pattern)}
    last, total = list(layers)[-1], sum(module.weight.numel() for module in layers.values())
    if isinstance(layers[last], nn.Linear) and layers[last].weight.numel() < CHEAP * total:
        dense.add(last)
    return dense


def _matches(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def mask_shape(weight: Tensor, granularity: int) -> tuple[int, ...]:
    """The shape of a mask: the first ``granularity`` dimensions of a kernel, both of a matrix."""
    return tuple(weight.shape[:granularity]) if weight.ndim > 2 else tuple(weight.shape)


@torch.no_grad()
def attach_mask(module: nn.Module, mask: Tensor) -> None:
    """Make ``mask`` (bool, the first dimensions of the weight) the buffer ``weight_mask``, and W zero outside of it."""
    mask = mask.to(module.weight.device)
    if mask.ndim == module.weight.ndim:
        mask = torch.empty_like(module.weight, dtype=torch.bool).copy_(mask)  # numbered as the weight is
    module.register_buffer(MASK, mask)
    Masked(module.weight, mask).apply()


def masked_weights(model: nn.Module) -> list[Masked]:
    """Every sparse tensor of ``model``, in order of registration; call it once memory format and device are final."""
    return [
        Masked(module.weight, getattr(module, MASK), f"{name}.weight".lstrip("."))
        for name, module in model.named_modules()
        if hasattr(module, MASK)
    ]
