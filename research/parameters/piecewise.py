"""Values that change with the epoch, as a text: ``"0:0.1 60:0.02"`` is 0.1 from epoch 0 and 0.02 from epoch 60 on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from research.errors import UsageError


class Piecewise(str):
    """A checked epoch:value text, also used as a parameter's type. A bare number holds in every epoch.

    Raises:
        UsageError: not pairs of numbers, epochs that do not start at 0 and increase, or a value that is negative.
    """

    pairs: tuple[tuple[float, float], ...]  # (epoch, value)

    def __new__(cls, given: Any = "") -> Piecewise:
        if isinstance(given, Mapping):
            given = " ".join(f"{epoch}:{value}" for epoch, value in given.items())
        text = str(given)
        if isinstance(given, float) and "." in text:
            text = repr(given)  # one text for 0.1 and 0.10, as runs have it in their identity
        piecewise = super().__new__(cls, text)
        words = piecewise.replace(",", " ").split()
        pairs = [word.split(":") if len(words) > 1 or ":" in word else ["0", word] for word in words]
        try:
            piecewise.pairs = tuple((float(epoch), float(value)) for epoch, value in pairs)
        except ValueError:
            raise UsageError("expected epoch:value pairs, such as '0:0.1 60:0.02', or one number") from None
        epochs = [epoch for epoch, _ in piecewise.pairs]
        if not all(map(math.isfinite, epochs)):
            raise UsageError("epochs must be numbers")
        if epochs[:1] not in ([], [0]) or epochs != sorted(set(epochs)):
            raise UsageError("epochs must start at 0 and increase")
        if not all(math.isfinite(value) and value >= 0 for _, value in piecewise.pairs):
            raise UsageError("values must be >= 0")
        return piecewise

    def at(self, epoch: float) -> float:
        """The last value whose epoch is <= ``epoch``; the table must not be empty."""
        return next(value for start, value in reversed(self.pairs) if start <= epoch)
