"""The hyperparameter with which a network has a given number of parameters, or of multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from research.errors import UsageError
from research.layers.base import SeparableSubstitute
from research.layers.families.grouped import Separable
from research.layers.selection import layout
from research.layers.spec import Spec, parse_spec
from research.parameters.signatures import parameters_of


@dataclass(frozen=True)
class Budget:
    """What was asked for and what was found; ``floor`` and ``ceiling`` bound what the family reaches on the network."""

    quantity: str
    """``params`` or ``mult_adds``"""
    target: float
    reached: float
    floor: float
    ceiling: float
    spec: Spec
    """The spec with the hyperparameter that was found."""

    @property
    def value(self) -> float:
        """The hyperparameter."""
        return self.spec.arguments[self.spec.main]

    @property
    def error(self) -> float:
        """Relative: reached over asked for, less one."""
        return self.reached / self.target - 1

    def __str__(self) -> str:
        return (
            f"{self.quantity} {self.target:,.0f}: {self.spec} has {self.reached:,.0f} ({self.error:+.2%}; "
            f"from {self.floor:,.0f} to {self.ceiling:,.0f} can be reached)"
        )


def fit_budget(
    make_model: nn.Module | Callable[[], nn.Module],
    spec: str | Spec,
    params: float | None = None,
    mult_adds: float | None = None,
    input_shape: tuple[int, ...] | None = None,
    tolerance: float = 0.005,
    allow_miss: bool = False,
) -> Budget:
    """The value of the family's first argument whose network comes closest to ``params`` or ``mult_adds``.

    Sizes come from closed forms and grow or fall with the argument, so it is bisected until no float, or integer, lies
    between; then the shortest decimal of the same size is taken. No network is built beside ``make_model``'s.

    Args:
        spec: a family, or a spec that sets anything but its first argument.
        params, mult_adds: the budget of the whole network, what stays included; one of the two.
        input_shape: (C, H, W), for mult_adds.
        tolerance: largest relative miss.
        allow_miss: take the closest size in any case.

    Raises:
        UsageError: the budget is out of reach, or no size lies within the tolerance; the message says what is.
    """
    model = make_model if isinstance(make_model, nn.Module) else make_model()
    spec = parse_spec(spec) if isinstance(spec, str) else spec
    if (params is None) == (mult_adds is None):
        raise UsageError("a budget is either params or mult_adds: give one of them")
    if mult_adds is not None and input_shape is None:
        raise UsageError("a budget of mult_adds needs input_shape")
    if spec is None or spec.layer.settings is None:
        raise UsageError(f"substitute={str(spec)!r}: has one size, or none that a budget can be searched in")
    quantity, target = ("params", params) if params is not None else ("mult_adds", mult_adds)
    plan = layout(model, spec, input_shape if quantity == "mult_adds" else None)
    integer = isinstance(parameters_of(spec.layer)[spec.main].default, int)

    def size(value: float) -> float:
        return getattr(plan, quantity)(spec.at(value))

    ends = sorted(spec.layer.settings, key=size)  # by size: groups make a network smaller
    floor, ceiling = map(size, ends)
    if quantity == "params" and not (integer or allow_miss) and issubclass(spec.layer, SeparableSubstitute):
        # larger than with dense 1x1 convolutions is possible for some families, but nothing is compressed then
        ceiling = max(floor, min(ceiling, plan.params(replace(spec, family="sep", layer=Separable, arguments={}))))
    below, above = _bisect(lambda value: size(value) <= min(target, ceiling), *ends, integer)
    above = below if size(above) > ceiling else above
    value = min((below, above), key=lambda v: abs(size(v) - target))
    value = value if integer else _shortest(value, size, *ends)
    budget = Budget(quantity, target, size(value), floor, ceiling, spec.at(value))
    if abs(budget.error) > tolerance and not allow_miss:
        nearest = " and ".join(f"{s:,.0f}" for s in sorted({size(below), size(above)}))
        raise UsageError(
            f"{quantity}={target:,.0f}: {spec.family} reaches {floor:,.0f} to {ceiling:,.0f} on this network, nearest "
            f"{nearest}; take one of these, or the nearest with allow_miss"
        )
    return budget


def _bisect(fits: Callable[[float], bool], small: float, large: float, integer: bool) -> tuple[float, float]:
    """Neighbours of which the first fits and the second does not; twice the same end where both or none fit."""
    if not fits(small):
        return small, small
    if fits(large):
        return large, large
    while True:
        middle = (small + large) // 2 if integer else (small + large) / 2
        if middle in (small, large) or abs(large - small) < 1e-13:
            return small, large
        if fits(middle):
            small = middle
        else:
            large = middle


def _shortest(value: float, size: Callable[[float], float], *ends: float) -> float:
    """The decimal with the fewest digits that gives the same size."""
    shorter = (round(value, digits) for digits in range(1, 16))
    return next((v for v in shorter if min(ends) <= v <= max(ends) and size(v) == size(value)), value)
