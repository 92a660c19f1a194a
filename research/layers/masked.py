"""Sparse weights: dense storage W beside a boolean mask, with W zero wherever the mask is.

The invariant W * mask = W is kept in place: by masking what changes W (its gradient) instead of W itself. Forward and
backward are those of the plain layer, and evaluation, averages and export see the sparse weights without knowing.

A unit is one entry of the mask, whose shape is the first g dimensions of the weight's ("granularity"): with g = 4 a
single weight of a convolution (O, I, kh, kw), 3 a kernel row, 2 a kernel slice, 1 an output filter. In matrices a unit
is always one weight. N units, M of them active. Units are numbered in the memory order of the mask: row-major, and
(O, kh, kw, I) for the single weights of a convolution in channels_last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
        self._permuted = self._order != sorted(self._order)
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
        if self._permuted and tensor.ndim == len(self._order):
            tensor = tensor.permute(self._order)
        return tensor.view(-1)

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

    def add(self, tensor: Tensor, values: Tensor) -> None:
        """Add ``values`` (M,) to the active units of ``tensor``, laid out as the weight; of single weights."""
        self.flat(tensor).scatter_add_(0, self.active, values)

    def magnitudes(self, of: Tensor | None = None) -> Tensor:
        """Mean abs(w) of each active unit (M,); with ``of``, mean abs(of) at the same places."""
        tensor = self.weight.detach() if of is None else of
        if self._elementwise:
            return tensor.permute(self._order).reshape(-1).index_select(0, self.active).abs_()
        sliced = tuple(range(self.mask.ndim, self.weight.ndim))
        return tensor.abs().mean(sliced).reshape(-1).index_select(0, self.active)

    def write(self, tensor: Tensor, units: Tensor, values: Tensor | float) -> None:
        """Set ``units`` of ``tensor``, shaped as the weight, to a number or to one row of ``values`` each."""
        tensor = tensor.detach()
        if not self._elementwise:
            tensor[torch.unravel_index(units, self.mask.shape)] = values
        elif isinstance(values, Tensor):
            self.flat(tensor).index_copy_(0, units, values)
        else:
            self.flat(tensor).index_fill_(0, units, values)

    def change(self, killed: Tensor, grown: Tensor, values: Tensor | float | None = None) -> None:
        """Deactivate the units ``killed`` and activate ``grown``, with weights 0 or ``values``; no other one moves."""
        self._flat_mask.index_fill_(0, killed, False)
        self.write(self.weight, killed, 0.0)
        if values is not None:
            self.write(self.weight, grown, values)
        if self.mask.device.type == "cpu":
            active = self.active.numpy()
            merged = np.concatenate([active[self._flat_mask.numpy()[active]], grown.numpy()])
            merged.sort(kind="stable")  # merges ordered runs: in proportion to M, not to N
            self.active = torch.from_numpy(merged)
        else:
            self.__dict__.pop("active", None)
        self._flat_mask.index_fill_(0, grown, True)

    @contextmanager
    def without(self, units: Tensor) -> Iterator[None]:
        """A context in which the active ``units`` count as inactive, while their weights are kept."""
        active = self.active
        self._flat_mask.index_fill_(0, units, False)
        self.active = active.index_select(0, where(self.is_active(active)))
        try:
            yield
        finally:
            self._flat_mask.index_fill_(0, units, True)
            self.active = active

    def restrict(self, tensor: Tensor, added: Tensor | None = None) -> None:
        """Set ``tensor``, laid out as the weight, to exactly 0 outside the mask, in place.

        ``added`` (M,) is added to what is kept; for units that are single weights.
        """
        if self._elementwise:
            flat = self.flat(tensor)
            kept = flat.index_select(0, self.active)
            if added is not None:
                kept += added
            flat.zero_().scatter_(0, self.active, kept)  # the one pass over all weights is the cheapest there is
        else:
            tensor.masked_fill_(~self._broadcast, 0.0)

    def masked(self, tensor: Tensor) -> Tensor:
        """A copy of ``tensor``, shaped as the weight and laid out like it, that is exactly 0 outside the mask."""
        copy = torch.empty_like(self.weight.detach(), dtype=tensor.dtype).copy_(tensor.detach())
        self.restrict(copy)
        return copy

    def apply(self) -> None:
        """Restore W = 0 outside the mask, where something else than a masked gradient has moved W."""
        self.restrict(self.weight.detach())


def where(flags: Tensor) -> Tensor:
    """The positions, int64, at which a vector of booleans is set."""
    if flags.device.type == "cpu":  # several times faster than torch's there
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero()[:, 0]


def active_weights(tensors: Sequence[Masked]) -> Tensor:
    """The active weights of all ``tensors``, one tensor after the other; a copy."""
    return torch.cat([tensor.values() for tensor in tensors])


def largest(values: Tensor, count: int) -> Tensor:
    """The positions, int64 and ascending, of the ``count`` largest of a vector; nan is less than any number but -inf.

    On a CPU the first of equal values, and about one pass over the vector: what a sample shows to be too small is left
    out before the rest is partitioned.
    """
    least = torch.finfo(values.dtype).min
    if count == 0 or values.device.type != "cpu":
        return values.nan_to_num(least, torch.inf, -torch.inf).topk(count, sorted=False).indices.sort().values
    array = values.detach().to(torch.promote_types(values.dtype, torch.float32)).numpy()  # which has no bfloat16
    places = np.arange(0)
    if len(array) > 50_000:
        sample = array[:: len(array) // 4096 | 1]
        expected = count / len(array) * len(sample)
        rank = min(len(sample), int(expected + 3 * expected**0.5 + 3))  # three standard deviations: hardly ever too few
        places = np.flatnonzero(array >= np.partition(sample, -rank)[-rank])
    if len(places) < count:
        places = np.arange(len(array))
    found = array[places]
    found[np.isnan(found)] = least
    last = np.partition(found, -count)[-count]
    chosen = found > last
    chosen[np.flatnonzero(found == last)[: count - chosen.sum()]] = True
    return torch.from_numpy(places[chosen])


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
