"""Moments and lengths of training in one notation: ``12ep`` epochs, ``4000it`` optimizer steps, ``75%`` of training.

A parameter of this type may also be a bare number, in its own unit: a share of training for ``prune.end``, steps for
``rigl.period``, epochs for ``set.stop_epoch``. A value that changes with the epoch is a
:class:`research.parameters.piecewise.Piecewise`, such as ``0:100 25:200``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from research.errors import UsageError

Unit = Literal["ep", "it", "%"]


class When(str):
    """A checked time with its unit; also used as a parameter's type: ``int | When``.

    Raises:
        UsageError: it is no number > 0 with a unit, or more than all of training.
    """

    number: float
    unit: Unit

    def __new__(cls, text: Any) -> When:
        parts = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ep|it|%)", str(text).strip())
        if not parts:
            raise UsageError("expected a time with its unit: 12ep, 4000it or 75%")
        when = super().__new__(cls, f"{float(parts[1]):.15g}{parts[2]}")  # one text for 12ep and 12.0 ep
        when.number, when.unit = float(parts[1]), parts[2]
        if when.number <= 0 or (when.unit == "%" and when.number > 100):
            raise UsageError(f"{when}: must be > 0{' and <= 100%' if when.unit == '%' else ''}")
        return when


def is_when(value: Any) -> bool:
    """Whether ``value`` writes a time with its unit."""
    try:
        return isinstance(value, str) and bool(When(value))
    except UsageError:
        return False


def in_steps(value: float | str, unit: Unit | Literal["share"], epochs: float, steps_per_epoch: float) -> float:
    """``value`` in optimizer steps of a run of ``epochs`` epochs; a bare number is in ``unit``."""
    if isinstance(value, str):
        when = When(value)
        value, unit = when.number, when.unit
    scale = {"ep": steps_per_epoch, "it": 1, "share": epochs * steps_per_epoch, "%": epochs * steps_per_epoch / 100}
    return value * scale[unit]


def in_epochs(value: float | str, unit: Unit | Literal["share"], epochs: float, steps_per_epoch: float) -> float:
    """``value`` in epochs, see :func:`in_steps`."""
    if not isinstance(value, str) and unit == "ep":
        return value  # not there and back, which rounds
    return in_steps(value, unit, epochs, steps_per_epoch) / steps_per_epoch


def every(value: float | str, epochs: float, steps_per_epoch: float) -> int:
    """Whole steps between two events, at least 1; a bare number is in steps."""
    return max(1, round(in_steps(value, "it", epochs, steps_per_epoch)))
