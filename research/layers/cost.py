"""What a network costs: parameters, nonzero parameters and multiply-adds of one input, layer by layer.

The rules are those of the research log's own counts: convolutions in x out x kernel / groups at every output pixel,
without bias; linear layers weights and biases; a ReLU module 1 an element, average and maximum pooling modules the
kernel's size an output element; normalisation, adaptive pooling, other activations, and whatever is not a module
(additions, concatenation, functional calls) nothing. A substitute counts as its family says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from research.errors import UsageError, nearest
from research.layers.base import Geometry, Legacy, Substitute, units

LEGACY = {
    "dilation": "until February 2019: the output size of dilated k x k convolutions ignored their dilation",
    "acdc": "at the end of the log: ACDC of a k x k convolution counted at every input, not output, pixel",
    "acdc-min": "until 6 February 2019: as acdc, but a pixel costs at most the N^2 of a dense matrix",
    "conv3d": "the 3-D convolution of DConv3D was not counted",
}


@dataclass
class Row:
    """One layer: its name and kind, what it is, and what it costs over all its calls."""

    layer: str
    kind: str
    params: int
    nonzeros: int
    mult_adds: float = 0.0
    inputs: list[Size] = field(default_factory=list)
    """Shape of its input at every call, without the batch axis; empty for a layer that was not used."""
    output: Size | None = None
    geometry: Geometry | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a network. ``pandas.DataFrame(cost.rows)`` is the table."""

    rows: list[Row]
    numel: int
    """Parameters that the network itself says it has, beside those that were counted by rule."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Classes that own parameters and have no rule -> number of those parameters."""

    @property
    def params(self) -> int:
        return sum(row.params for row in self.rows)

    @property
    def nonzeros(self) -> int:
        return sum(row.nonzeros for row in self.rows)

    @property
    def mult_adds(self) -> float:
        return sum(row.mult_adds for row in self.rows)

    def __str__(self) -> str:
        """The three lines of the research log."""
        return f"Mult-Adds: {self.mult_adds:.5E}\nParams: {self.params:.5E}\nSanity check, parameters: {self.numel:.5E}"


@torch.no_grad()
def count(
    model: nn.Module, input_shape: tuple[int, ...], legacy: Collection[str] = (), allow_ignored: bool = False
) -> Cost:
    """Count the parameters and multiply-adds of ``model`` for one input of ``input_shape`` (C, H, W).

    One input of zeros passes through in evaluation mode; the model is left as it was. Nonzero parameters are read from
    a boolean buffer ``<name>_mask`` beside the parameter where there is one, else from the values of tensors with two
    or more axes; vectors (biases, normalisation) count whole.

    Args:
        legacy: keys of :data:`LEGACY`, to count as the log did at some time.
        allow_ignored: go on where classes that own parameters have no rule; :attr:`Cost.ignored` lists them.

    Raises:
        UsageError: such classes exist, or the parameters counted by rule are not those that the network has.
    """
    for word in legacy:
        if word not in LEGACY:
            raise UsageError(f"legacy={word!r}: unknown{nearest(word, LEGACY)}")
    rows, ignored = _parameters(model)
    cost = Cost(list(rows.values()), sum(p.numel() for p in model.parameters()), ignored)
    if ignored and not allow_ignored:
        listed = ", ".join(f"{kind} ({number:,})" for kind, number in sorted(ignored.items()))
        raise UsageError(f"no rule for the parameters of {listed}; add one to RULES, or give allow_ignored")
    if cost.params + sum(ignored.values()) != cost.numel:
        raise UsageError(f"counted {cost.params:,} parameters by rule, but the network has {cost.numel:,}")
    _mult_adds(model, rows, input_shape, frozenset(legacy))
    return cost


# -- parameters ---------------------------------------------------------------------------------------------------


def _parameters(model: nn.Module) -> tuple[dict[nn.Module, Row], dict[str, int]]:
    """A row a layer, and the parameters that no rule knows by their owner's class. A tied parameter counts once."""
    rows, ignored, seen = {}, Counter(), set()
    for name, module in units(model):
        whole = isinstance(module, Substitute)
        # from other parameters, such as the bank of tied weights: the layer, or part of what a substitute is made of
        made = any(map(is_parametrized, module.modules() if whole else [module]))
        owned = dict(module.named_parameters(recurse=made or whole))
        if not isinstance(module, tuple(RULES)):
            new = [p for p in owned.values() if p not in seen]
            ignored.update({type(module).__name__: sum(p.numel() for p in new)} if new else {})
            seen.update(new)
            continue
        tied = {n: p for n, p in owned.items() if p in seen}
        everything = sum(p.numel() for p in owned.values()) if made else _rule(module)[0](module)
        parameters = everything - sum(p.numel() for p in tied.values())
        nonzeros = sum(_nonzeros(module, n, p) for n, p in owned.items() if n not in tied)
        rows[module] = Row(name, type(module).__name__, parameters, nonzeros, geometry=_geometry(module))
        seen.update(owned.values())
    return rows, dict(ignored)


def _nonzeros(module: nn.Module, name: str, parameter: Tensor) -> int:
    owner, _, leaf = name.rpartition(".")
    mask = getattr(module.get_submodule(owner), f"{leaf.removesuffix('_orig')}_mask", None)
    if isinstance(mask, Tensor):
        return int(mask.count_nonzero())
    return int(parameter.count_nonzero()) if parameter.ndim > 1 and not parameter.is_meta else parameter.numel()


def _geometry(module: nn.Module) -> Geometry | None:
    try:
        return Geometry.of(module)
    except UsageError:
        return None


# -- multiply-adds ------------------------------------------------------------------------------------------------


def _mult_adds(model: nn.Module, rows: dict[nn.Module, Row], input_shape: tuple[int, ...], legacy: Legacy) -> None:
    def add(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        row = rows[module]
        row.inputs.append(inputs[0].shape[1:])
        row.output = output.shape[1:]
        row.mult_adds += _rule(module)[1](module, row.inputs[-1], row.output, legacy)

    some = next(iter(model.parameters()), torch.empty(0))
    was_training = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(add) for module in rows]
    try:
        model.eval()
        model(torch.zeros(1, *input_shape, dtype=some.dtype, device=some.device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in was_training.items():
            module.training = training


Rule = tuple[Callable[[nn.Module], int], Callable[[nn.Module, Size, Size, Legacy], float]]


def _rule(module: nn.Module) -> Rule:
    """The rule of the nearest ancestor of its class."""
    return next(RULES[kind] for kind in type(module).__mro__ if kind in RULES)


def _conv_parameters(conv: _ConvNd) -> int:
    weights = conv.in_channels * conv.out_channels // conv.groups * math.prod(conv.kernel_size)
    return weights + (conv.out_channels if conv.bias is not None else 0)


def _conv(conv: _ConvNd, x: Size, y: Size, legacy: Legacy) -> float:
    pixels = math.prod(y[1:])
    if "dilation" in legacy and (geometry := _geometry(conv)):
        pixels = math.prod(geometry.output_size(x[1:], legacy))
    return conv.in_channels * conv.out_channels // conv.groups * math.prod(conv.kernel_size) * pixels


def _transposed(conv: _ConvTransposeNd, x: Size, y: Size, legacy: Legacy) -> float:
    return conv.in_channels * conv.out_channels // conv.groups * math.prod(conv.kernel_size) * math.prod(x[1:])


def _linear_parameters(linear: nn.Linear) -> int:
    return linear.out_features * (linear.in_features + (linear.bias is not None))


def _linear(linear: nn.Linear, x: Size, y: Size, legacy: Legacy) -> float:
    return _linear_parameters(linear) * math.prod(x[:-1])


def _pool(pool: nn.Module, x: Size, y: Size, legacy: Legacy) -> float:
    k = pool.kernel_size
    return (k**2 if isinstance(k, int) else math.prod(k)) * y.numel()


def _norm_parameters(norm: _NormBase) -> int:
    return 2 * norm.num_features if norm.affine else 0


def _layer_norm_parameters(norm: nn.LayerNorm) -> int:
    return math.prod(norm.normalized_shape) * ((norm.weight is not None) + (norm.bias is not None))


def _free(module: nn.Module, x: Size, y: Size, legacy: Legacy) -> float:
    return 0


def _none(module: nn.Module) -> int:
    return 0


def _substitute_parameters(layer: Substitute) -> int:
    return layer.count_parameters(layer.geometry, **layer.arguments)


def _substitute(layer: Substitute, x: Size, y: Size, legacy: Legacy) -> float:
    return layer.count_mult_adds(layer.geometry, tuple(x[1:]), legacy, **layer.arguments)


RULES: dict[type[nn.Module], Rule] = {
    Substitute: (_substitute_parameters, _substitute),
    _ConvNd: (_conv_parameters, _conv),
    _ConvTransposeNd: (_conv_parameters, _transposed),
    nn.Linear: (_linear_parameters, _linear),
    nn.ReLU: (_none, lambda module, x, y, legacy: y.numel()),
    nn.AvgPool2d: (_none, _pool),
    nn.MaxPool2d: (_none, _pool),
    _NormBase: (_norm_parameters, _free),
    nn.GroupNorm: (lambda norm: 2 * norm.num_channels if norm.affine else 0, _free),
    nn.LayerNorm: (_layer_norm_parameters, _free),
    nn.PReLU: (lambda prelu: prelu.num_parameters, _free),
}
"""Class -> its closed forms: parameters(module), and mult_adds(module, input shape, output shape, legacy)."""
