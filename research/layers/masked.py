"""Sparse weights: dense storage W beside a boolean mask, with W zero wherever the mask is.

The invariant W * mask = W is kept in place: by masking what changes W (its gradient) instead of W itself. Forward and
backward are those of the plain layer, and evaluation, averages and export see the sparse weights without knowing.

A unit is one entry of the mask, whose shape is the first g dimensions of the weight's ("granularity"): with g = 4 a
single weight of a convolution (O, I, kh, kw), 3 a kernel row, 2 a kernel slice, 1 an output filter. In matrices a unit
is always one weight. N units, M of them active. Units are numbered in the memory order of the mask: row-major, and
(O, kh, kw, I) for the single weights of a convolution in channels_last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from research.devices import send
from research.errors import UsageError, nearest
from research.layers.base import Substitute
from research.network_protocols import TakesAuxiliaryHead

MASK = "_mask"  # end of a buffer's name, which begins with that of the parameter beside it
SHORTCUTS = ("*shortcut*", "*downsample*", "*skip*")
CHEAP = 0.02  # a classifier with less of a convolutional network's weights than this stays dense


class Masked:
    """One sparse tensor: ``weight`` (float), its ``mask`` (bool), and the list of its active units.

    The host keeps a list of its own, beside that on the device of the weight: what is killed and grown is decided here,
    in lists of units (int64) of the host, so that a GPU is only asked for what its numbers decide.
    """

    def __init__(self, weight: Tensor, mask: Tensor, name: str = ""):
        self.weight, self.mask, self.name = weight, mask, name
        self._order = sorted(range(weight.ndim), key=lambda d: (-weight.stride(d), d))  # dimensions, largest step first
        self._permuted = self._order != sorted(self._order)
        self.broadcast = mask.reshape(*mask.shape, *[1] * (weight.ndim - mask.ndim))  # a view, shaped to multiply by
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
    def flags(self) -> Tensor:
        """Whether each unit is active (N,), on the host; on a CPU the memory of the mask itself."""
        return self._flat_mask.cpu()

    @cached_property
    def active(self) -> Tensor:
        """The active units (M,), int64, ascending, on the host."""
        return where(self.flags)

    @cached_property
    def places(self) -> Tensor:
        """The active units on the device of the weight; on a CPU the same tensor."""
        return send(self.active, self.weight.device)

    def flat(self, tensor: Tensor) -> Tensor:
        """``tensor``, laid out as the weight or the mask is, as a vector in the order in which units are numbered.

        Raises:
            RuntimeError: it is laid out otherwise.
        """
        if self._permuted and tensor.ndim == len(self._order):
            tensor = tensor.permute(self._order)
        return tensor.view(-1)

    def shaped(self, vector: Tensor) -> Tensor:
        """A vector of all units, in the order in which they are numbered, as the mask's shape; undoes :meth:`flat`."""
        if not (self._permuted and self._elementwise):
            return vector.view(self.mask.shape)
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        return vector.view([self.mask.shape[d] for d in self._order]).permute(inverse)

    @property
    def inactive(self) -> Tensor:
        """The others (N - M,), int64, ascending; takes time in proportion to N."""
        return where(~self.flags)

    def is_active(self, units: Tensor) -> Tensor:
        """Whether each of ``units`` is active."""
        return self.flags.index_select(0, units)

    def values(self) -> Tensor:
        """The active weights (M,), a copy; for units that are single weights."""
        return self._flat_weight.index_select(0, self.places)

    def add(self, tensor: Tensor, values: Tensor) -> None:
        """Add ``values`` (M,) to the active units of ``tensor``, laid out as the weight; of single weights."""
        self.flat(tensor).scatter_add_(0, self.places, values)

    def magnitudes(self, of: Tensor | None = None) -> Tensor:
        """Mean abs(w) of each active unit (M,); with ``of``, mean abs(of) at the same places."""
        tensor = self.weight.detach() if of is None else of
        if self._elementwise:
            return tensor.permute(self._order).reshape(-1).index_select(0, self.places).abs_()
        sliced = tuple(range(self.mask.ndim, self.weight.ndim))
        return tensor.abs().mean(sliced).reshape(-1).index_select(0, self.places)

    def write(self, tensor: Tensor, units: Tensor, values: Tensor | float) -> None:
        """Set ``units`` of ``tensor``, shaped as the weight, to a number or to one row of ``values`` each."""
        tensor, units = tensor.detach(), send(units, tensor.device)
        if not self._elementwise:
            tensor[self._coordinates(units)] = values
        elif isinstance(values, Tensor):
            self.flat(tensor).index_copy_(0, units, values)
        else:
            self.flat(tensor).index_fill_(0, units, values)

    def _coordinates(self, units: Tensor) -> tuple[Tensor, ...]:
        """Where ``units`` lie in the mask; ``torch.unravel_index`` would have the host wait for the GPU."""
        found = []
        for side in reversed(self.mask.shape):
            found.append(units % side)
            units = units // side
        return tuple(reversed(found))

    def change(self, killed: Tensor, grown: Tensor, values: Tensor | float | None = None) -> None:
        """Deactivate the units ``killed`` and activate ``grown``, with weights 0 or ``values``; no other one moves."""
        self.write(self.weight, killed, 0.0)
        if values is not None:
            self.write(self.weight, grown, values)
        active = self.active.numpy()
        self.flags.index_fill_(0, killed, False)
        merged = np.concatenate([active[self.flags.numpy()[active]], grown.numpy()])
        merged.sort(kind="stable")  # merges ordered runs: in proportion to M, not to N
        self.flags.index_fill_(0, grown, True)
        self.active = torch.from_numpy(merged)
        self.places = send(self.active, self.weight.device)
        if self.mask.device.type != "cpu":  # else the flags are the mask
            self._flat_mask.zero_().index_fill_(0, self.places, True)

    @contextmanager
    def without(self, units: Tensor) -> Iterator[None]:
        """A context in which the active ``units`` count as inactive to the host, while their weights are kept."""
        active = self.active
        self.flags.index_fill_(0, units, False)
        self.active = active.index_select(0, where(self.is_active(active)))
        try:
            yield
        finally:
            self.flags.index_fill_(0, units, True)
            self.active = active

    def restrict(self, tensor: Tensor, added: Tensor | None = None) -> None:
        """Set ``tensor``, laid out as the weight, to exactly 0 outside the mask, in place.

        ``added`` (M,) is added to what is kept; for units that are single weights.
        """
        if self._elementwise:
            flat = self.flat(tensor)
            kept = flat.index_select(0, self.places)
            if added is not None:
                kept += added
            flat.zero_().scatter_(0, self.places, kept)  # the one pass over all weights is the cheapest there is
        else:
            tensor.masked_fill_(~self.broadcast, 0.0)

    def masked(self, tensor: Tensor) -> Tensor:
        """A copy of ``tensor``, shaped as the weight and laid out like it, that is exactly 0 outside the mask."""
        copy = torch.empty_like(self.weight.detach(), dtype=tensor.dtype).copy_(tensor.detach())
        self.restrict(copy)
        return copy

    def apply(self) -> None:
        """Restore W = 0 outside the mask, where something else than a masked gradient has moved W."""
        self.restrict(self.weight.detach())


def where(flags: Tensor) -> Tensor:
    """The positions, int64, at which a vector of booleans of the host is set."""
    return torch.from_numpy(np.flatnonzero(flags.numpy()))  # several times faster than torch's


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
    if len(array) > 10_000:
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


@dataclass(frozen=True)
class Site:
    """Weights that a mask may lie on: the parameter ``parameter`` of ``owner``, called ``name`` in its network."""

    name: str
    owner: nn.Module
    parameter: str = "weight"

    @property
    def weight(self) -> nn.Parameter:
        return getattr(self.owner, self.parameter)

    @property
    def linear(self) -> bool:
        """Whether it is the matrix of a linear layer; everything else is a convolution, or stands for one."""
        return isinstance(self.owner, nn.Linear)

    @property
    def plain(self) -> bool:
        """Whether it is the kernel or matrix of a layer of PyTorch's."""
        return isinstance(self.owner, (nn.Conv2d, nn.Linear))


@dataclass(frozen=True)
class Choice:
    """The weights of a network that become sparse, by name, in order of registration; and why the others do not."""

    sparse: Mapping[str, Site]
    dense: Mapping[str, str]
    """Layers that stay dense -> the reason."""
    weights: int
    """Weights of all of these layers."""

    def describe(self, masked: Collection[str], verb: str = "masks") -> str:
        """What of it is under masks, those of the sites named in ``masked``: a sentence, with the reasons."""
        sizes = [self.sparse[name].weight.numel() for name in masked]
        told = f"{verb} {sum(sizes):,} of {self.weights:,} weights in {len(sizes)} layers"
        reasons: dict[str, list[str]] = {}
        for name, reason in (self.dense | {n: "its sparsity is 0" for n in self.sparse if n not in masked}).items():
            reasons.setdefault(reason, []).append(name)
        listed = [f"{_some(names)} because {reason}" for reason, names in reasons.items()]
        return f"{told}; left dense: {'; '.join(listed)}" if listed else told


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(name or "the network itself" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def sparse_layers(
    model: nn.Module, only: str = "", keep: str = "", sparse_downsample: bool = False
) -> Mapping[str, Site]:
    """The weights that become sparse, by layer name: what :func:`choose` chooses."""
    return choose(model, only, keep, sparse_downsample).sparse


def choose(
    model: nn.Module, only: str = "", keep: str = "", sparse_downsample: bool = False, inside: bool = True
) -> Choice:
    """Which trained weights of ``model`` become sparse: those of Conv2d and Linear modules, and the free ones of
    substitutes (:attr:`research.layers.base.Substitute.free`), each by its layer's name.

    ``only`` and ``keep`` are patterns of layer names (``"group1.* fc"``), separated by blanks. With ``only`` exactly
    what it matches; otherwise all but those where sparsity saves next to nothing and costs most: the first
    convolution, depthwise convolutions, convolutions of shortcuts (unless ``sparse_downsample``), and a classifier with
    less than 2 % of the weights of a convolutional network. ``keep`` leaves further ones dense. Without ``inside``
    substitutes keep their free weights, the convolutions that they are made of excepted. An auxiliary head is no part
    of the choice.

    Raises:
        UsageError: a pattern matches no such layer, or nothing but the classifier is left of a convolutional network.
    """
    found, dense, sizes = _sites(model)
    for pattern in (only + " " + keep).split():
        if not _matches(found, pattern):
            raise UsageError(f"{pattern!r} matches no convolution or linear layer{nearest(pattern, found)}")
    chosen = {name for pattern in only.split() for name in _matches(found, pattern)}
    if only:
        dense |= {name: "only= does not name it" for name in found if name not in chosen}
    else:
        dense |= _dense_by_default(found, sparse_downsample)
    if not inside:
        dense |= {name: "it stands for a layer already" for name, site in found.items() if not site.plain}
    dense |= {name: "keep= names it" for pattern in keep.split() for name in _matches(found, pattern)}
    choice = Choice({n: site for n, site in found.items() if n not in dense}, dense, sizes)
    if not choice.sparse:
        raise UsageError("no layer of this network is left to be sparse; give only=… with names of its layers")
    if not only and dense and list(choice.sparse) == [last := list(found)[-1]] and found[last].linear:
        raise UsageError(
            f"nothing but the classifier {last} is left to be sparse ({choice.describe([last])}); give only={last} if "
            "that is meant"
        )
    return choice


def _sites(model: nn.Module) -> tuple[dict[str, Site], dict[str, str], int]:
    """All weights that a mask may lie on, what else substitutes are made of with the reason, and the sum of both."""
    found: dict[str, Site] = {}
    dense: dict[str, str] = {}
    seen: set[int] = set()  # of modules that share one weight the first
    total = 0
    head = "auxiliary_head." if isinstance(model, TakesAuxiliaryHead) else None
    for name, module in model.named_modules():
        if head and f"{name}.".startswith(head):  # gone after training, and not there yet where its method comes later
            continue
        sites = []
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            sites = [Site(name, module)]
        elif isinstance(module, Substitute):
            for path in module.free:
                owner, _, parameter = path.rpartition(".")
                own = path.removesuffix("weight").rstrip(".")
                sites.append(Site(f"{name}.{own}".strip("."), module.get_submodule(owner), parameter))
            for path in _whole(module):
                dense[f"{name}.{path}".lstrip(".")] = "its entries act on whole channels"
                total += module.get_parameter(path).numel()
        for site in sites:
            if site.weight.requires_grad and id(site.weight) not in seen:
                found[site.name] = site
                total += site.weight.numel()
            seen.add(id(site.weight))
    return found, dense, total


def _whole(layer: Substitute) -> list[str]:
    """What a substitute is made of beside biases, convolutions and free weights."""
    own = [name for name, p in layer.named_parameters(recurse=False) if p.ndim > 1]
    paths = [p for p in dict.fromkeys([*own, *layer.compressed]) if p not in layer.free and not p.endswith("bias")]
    return [p for p in paths if not isinstance(layer.get_submodule(p.rpartition(".")[0]), nn.Conv2d)]


def _dense_by_default(sites: Mapping[str, Site], sparse_downsample: bool) -> dict[str, str]:
    """Why layers stay dense that no pattern speaks of."""
    others = [name for name, site in sites.items() if not site.linear]
    if not others:
        return {}
    dense: dict[str, str] = {}
    last, total = list(sites)[-1], sum(site.weight.numel() for site in sites.values())
    if sites[last].linear and sites[last].weight.numel() < CHEAP * total:
        dense[last] = f"it is a classifier with less than {CHEAP:.0%} of the weights"
    if not sparse_downsample:
        dense |= dict.fromkeys(filter(is_shortcut, others), "it belongs to a shortcut")
    for name in others:
        owner = sites[name].owner
        if isinstance(owner, nn.Conv2d) and owner.groups == owner.in_channels > 1:
            dense[name] = "it is a depthwise convolution"
    return dense | {others[0]: "it is the first convolution"}


def is_shortcut(name: str) -> bool:
    """Whether a layer is one beside the residual branch of a block, by its name."""
    return any(fnmatchcase(name, pattern) for pattern in SHORTCUTS)


def _matches(names: Iterable[str], pattern: str) -> list[str]:
    """The layers that a pattern fits, or that are part of something it fits."""
    return [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]


def mask_shape(weight: Tensor, granularity: int) -> tuple[int, ...]:
    """The shape of a mask: the first ``granularity`` dimensions of a kernel, all of anything else."""
    return tuple(weight.shape[:granularity]) if weight.ndim == 4 else tuple(weight.shape)


@torch.no_grad()
def attach_mask(module: nn.Module, mask: Tensor, parameter: str = "weight") -> None:
    """Put ``mask`` (bool, the first dimensions of the weight) beside ``parameter``, which becomes zero outside of it.

    It is the buffer ``<parameter>_mask``.
    """
    weight = getattr(module, parameter)
    mask = mask.to(weight.device)
    if mask.ndim == weight.ndim:
        mask = torch.empty_like(weight, dtype=torch.bool).copy_(mask)  # numbered as the weight is
    module.register_buffer(parameter + MASK, mask)
    Masked(weight, mask).apply()


def masked_weights(model: nn.Module) -> list[Masked]:
    """Every sparse tensor of ``model``, in order of registration; call it once memory format and device are final."""
    return [
        Masked(module.get_parameter(parameter), mask, f"{name}.{parameter}".lstrip("."))
        for name, module in model.named_modules()
        for parameter, mask in _masks_of(module)
    ]


def _masks_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters of ``module`` itself that have a mask, and these."""
    own = ((name.removesuffix(MASK), buffer) for name, buffer in module.named_buffers(recurse=False) if MASK in name)
    return [(name, buffer) for name, buffer in own if name in module._parameters]


def masks_among(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks in the state of a network, by the names that their buffers have there."""
    return {name: mask for name, mask in tensors.items() if name.endswith(MASK) and name.removesuffix(MASK) in tensors}
