"""Which layers of a network a substitute replaces, and how large the network then is, before anything is built.

A network may say so itself: ``kept_layers``, patterns of names that are never replaced (in place of the rule that the
first convolution is kept), and ``replaced_linear``, patterns of linear layers that are replaced too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from research.errors import UsageError, nearest
from research.layers.base import Geometry, Legacy, Pair, Substitute, units
from research.layers.cost import count
from research.layers.spec import Spec
from research.network_protocols import KeepsLayers, ReplacesLinear


@dataclass(frozen=True)
class Layout:
    """The layers of one network that a spec replaces."""

    replaced: dict[str, nn.Module]
    """By the layer's first name; a layer that the network uses in several places is there once."""
    kept: dict[str, str]
    """Convolutions that stay -> why."""
    rest: int
    """Parameters of everything that stays."""
    rest_mult_adds: float | None = None
    """The same of multiply-adds, and the input sizes (height, width) of every call of what is replaced; if counted."""
    sizes: dict[str, list[Pair]] | None = None

    def params(self, spec: Spec) -> int:
        """Parameters of the substituted network, exactly what building it would give."""
        return self.rest + sum(spec.layer.count_parameters(g, **spec.arguments) for g in self.geometries(spec))

    def mult_adds(self, spec: Spec, legacy: Legacy = frozenset()) -> float:
        """Multiply-adds of the substituted network."""
        return self.rest_mult_adds + sum(
            spec.layer.count_mult_adds(geometry, size, legacy, **spec.arguments)
            for geometry, sizes in zip(self.geometries(spec), self.sizes.values(), strict=True)
            for size in sizes
        )

    def geometries(self, spec: Spec) -> Iterable[Geometry]:
        for name, layer in self.replaced.items():
            geometry = Geometry.of(layer)
            if reason := spec.layer.unsupported(geometry, **spec.arguments):
                raise UsageError(f"substitute={str(spec)!r}: layer {name!r}: {reason}")
            yield geometry


def layout(
    model: nn.Module,
    spec: Spec,
    input_shape: tuple[int, ...] | None = None,
    legacy: Legacy = frozenset(),
) -> Layout:
    """What ``spec`` replaces in ``model``: every convolution but the first, depthwise ones, and what cannot be.

    ``spec.options.only`` and ``keep`` narrow that; so may the network. A layer whose own name ``only`` gives, not just
    that of a part of the network, is replaced whatever else is said. With ``input_shape`` (C, H, W), multiply-adds are
    counted too.

    Raises:
        UsageError: nothing would be replaced, a pattern fits no layer, or ``only`` names a layer that cannot be.
    """
    layers = {n: m for n, m in units(model) if isinstance(m, (nn.Conv2d, nn.Linear, Substitute))}
    only, keep = (_split(pattern, layers) for pattern in (spec.options.only, spec.options.keep))
    first = next((name for name, layer in layers.items() if not isinstance(layer, nn.Linear)), None)
    own_keep = model.kept_layers if isinstance(model, KeepsLayers) else (first or "",)
    linear = model.replaced_linear if isinstance(model, ReplacesLinear) else ()

    def why_kept(name: str, layer: nn.Module) -> str | None:
        named = any(fnmatchcase(name, pattern) for pattern in only)  # itself, not what it is part of
        if matches(name, keep):
            return "keep="
        if only and not matches(name, only):
            return "not among only="
        if not named:
            if isinstance(layer, nn.Linear) and not matches(name, linear):
                return "linear"
            if matches(name, own_keep):
                return "first convolution" if name == first else "by the network"
            if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1:
                return "depthwise"
        unsuitable = _unsuitable(layer, spec)
        if unsuitable and named:
            raise UsageError(f"substitute={str(spec)!r}: layer {name!r} cannot be replaced: {unsuitable}")
        return unsuitable

    reasons = {name: why_kept(name, layer) for name, layer in layers.items()}
    replaced = {name: layers[name] for name, reason in reasons.items() if reason is None}
    kept = {name: reason for name, reason in reasons.items() if reason is not None}
    if not replaced:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:3]) or "it has no convolutions"
        raise UsageError(f"substitute={str(spec)!r}: replaces nothing in {type(model).__name__} ({why})")
    gone = {parameter for layer in replaced.values() for parameter in layer.parameters()}
    rest = sum(p.numel() for p in model.parameters() if p not in gone)
    if input_shape is None:
        return Layout(replaced, kept, rest)
    rows = {row.layer: row for row in count(model, input_shape, legacy, allow_ignored=True).rows}
    sizes = {name: [_size(shape) for shape in rows[name].inputs] for name in replaced}
    return Layout(replaced, kept, rest, sum(r.mult_adds for n, r in rows.items() if n not in replaced), sizes)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern fits the name, or that of something the layer is part of."""
    return any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in patterns)


def _split(patterns: str, layers: Iterable[str]) -> list[str]:
    split = [pattern for pattern in patterns.split("|") if pattern]
    for pattern in split:
        if not any(matches(name, [pattern]) for name in layers):
            raise UsageError(f"substitute: no layer is named {pattern!r}{nearest(pattern, layers)}")
    return split


def _unsuitable(layer: nn.Module, spec: Spec) -> str | None:
    """Why this layer cannot be replaced."""
    try:
        return spec.layer.unsupported(Geometry.of(layer), **spec.arguments)
    except UsageError as error:
        return str(error)


def _size(shape: tuple[int, ...]) -> Pair:
    """Height and width of an input without its batch axis: (C, H, W), or (…, C) of a linear layer."""
    return tuple(shape[1:]) if len(shape) == 3 else (math.prod(shape[:-1]), 1)
