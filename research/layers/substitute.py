"""Model surgery: convolutions of any network replaced in place, and the weight decay that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.errors import UsageError
from research.layers.base import Geometry, Substitute
from research.layers.budget import Budget, fit_budget
from research.layers.selection import Layout, layout
from research.layers.spec import Spec, parse_spec

__all__ = ["Report", "fit_budget", "parse_spec", "substitute"]


@dataclass(frozen=True)
class Report:
    """What :func:`substitute` did."""

    spec: Spec
    replaced: tuple[str, ...]
    kept: Mapping[str, str]
    """Layers that stay -> why."""
    before: int
    """Parameters of the whole network with its own layers."""
    after: int
    budget: Budget | None = None

    @property
    def rho(self) -> float:
        """Compression ratio of the whole network."""
        return self.after / self.before

    def __str__(self) -> str:
        lines = [
            f"{self.spec}: {len(self.replaced)} layers replaced, {self.before:,} -> {self.after:,} parameters "
            f"(x {self.rho:.6g}); weight decay of the compressed ones x {self.scale:.6g}"
        ]
        lines += [str(self.budget)] if self.budget else []
        reasons: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"kept, {reason}: {' '.join(names)}" for reason, names in reasons.items()]
        return "\n".join(lines)

    @property
    def scale(self) -> float:
        """What the weight decay of compressed parameters is multiplied by."""
        return self.rho if self.spec.options.decay == "scaled" else 1.0


class OnVectors(nn.Module):
    """A substitute of a linear layer: vectors (N, …, in) as the pixels of an image."""

    def __init__(self, layer: Substitute):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)[..., None]  # (N, in, positions, 1)
        y = self.layer(pixels)
        return y[..., 0].transpose(1, 2).reshape(*x.shape[:-1], y.shape[1])


def substitute(model: nn.Module, spec: str | Spec | None, input_shape: tuple[int, ...] | None = None) -> Report | None:
    """Replace layers of ``model``, in place, as ``spec`` says; ``None`` where it says nothing.

    Which layers: see :func:`research.layers.selection.layout`. One that the network uses several times stays shared;
    stride, padding, dilation, groups, device and type are those of the layer before. Initial values come from torch's
    global generator.

    The decay of the compressed parameters n' is scaled by rho, parameters of the whole network after over before, so
    that the prior variance that all of them share stays: ``decay_scale`` on every new layer says so to the optimizer.

    Args:
        input_shape: (C, H, W), needed by a budget of mult_adds.

    Raises:
        UsageError: the spec is wrong or does not fit the network, or its budget cannot be met.
    """
    spec = parse_spec(spec) if isinstance(spec, str) else spec
    if spec is None:
        return None
    before = _numel(model)
    spec, plan, budget = planned(model, spec, input_shape)
    new = {old: _made(old, name, spec) for name, old in plan.replaced.items()}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children() leaves out a child's second name
            if child in new:
                setattr(parent, name, OnVectors(new[child]) if isinstance(child, nn.Linear) else new[child])
    report = Report(spec, tuple(plan.replaced), plan.kept, before, _numel(model), budget)
    for layer in new.values():
        layer.decay_scale = dict.fromkeys(layer.compressed, report.scale)
    return report


def planned(
    model: nn.Module, spec: Spec, input_shape: tuple[int, ...] | None = None
) -> tuple[Spec, Layout, Budget | None]:
    """What :func:`substitute` will do: the spec with its budget met, the layers, and how the budget was met.

    Raises:
        UsageError: as there.
    """
    o, budget = spec.options, None
    if o.budget is not None or o.mult_adds is not None:
        budget = fit_budget(model, spec, o.budget, o.mult_adds, input_shape, allow_miss=o.allow_miss)
        spec = budget.spec
    plan = layout(model, spec)
    if "" in plan.replaced:
        raise UsageError(f"substitute={str(spec)!r}: the network is this one layer; put it into an nn.Sequential")
    return spec, plan, budget


def _made(old: nn.Module, name: str, spec: Spec) -> Substitute:
    """The substitute of one layer."""
    try:
        layer = spec.layer(Geometry.of(old), **spec.arguments, init=spec.init)
        if spec.options.from_dense:
            layer.from_dense(*_dense(old))
    except UsageError as error:
        raise UsageError(f"substitute={str(spec)!r}: layer {name!r}: {error}") from error
    like = next(old.parameters())
    return layer.to(like.device, like.dtype).train(old.training)


def _dense(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (out, in / groups, kh, kw) and bias of a layer that is replaced."""
    with torch.no_grad():
        if isinstance(layer, Substitute):
            return layer.kernel().cpu(), None if layer.bias is None else layer.bias.cpu()
        weight = layer.weight[:, :, None, None] if isinstance(layer, nn.Linear) else layer.weight
        return weight.cpu(), None if layer.bias is None else layer.bias.cpu()


def _numel(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
