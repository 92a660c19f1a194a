"""Sparse momentum (SNFS): move weights to where the momentum is large (Dettmers & Zettlemoyer 2019, arXiv 1907.04840).

With the momentum of all weights, active or not, an event removes and grows (M_l of N_l units are active in layer l):

    r_l      rate(t) as in ITOP; at most the sparsity of a layer that is less than 20 % sparse and asks for more
    removed  ceil(r_l M_l) units of smallest abs(w)
    share_l  mean abs(momentum) over the active units of l, divided by the sum of that over layers
    growth   floor of ceil(share_l (all removed + a)), capped at 0.99 of the layer's inactive and removed units, the
             excess spread evenly over layers until none is left; the units of largest abs(momentum) grow
    a        <- a/4 + 3/4 e + mean of all e so far, with e = active units at the start - active units now
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from research.devices import fetch
from research.errors import UsageError
from research.hooks.sparse.base import SparseHook
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.events import Event, annealed_rate, momentum_of, move
from research.layers.masked import Masked
from research.parameters.signatures import Range
from research.parameters.when import When, every

if TYPE_CHECKING:
    from research.config import Config
    from research.runs.run import Run

Redistribution = Literal["momentum", "nonzero"]


def snfs_step(
    tensors: Sequence[Masked],
    momenta: Sequence[Tensor],
    rate: float,
    adjustment: float = 0.0,
    redistribution: Redistribution = "momentum",
) -> Event:
    """One event: ``tensors`` are changed in place.

    Args:
        momenta: dense, each shaped as its weight.
        adjustment: a, units grown beyond those removed.
        redistribution: what a layer's share is proportional to: mean abs(momentum), or its active units.
    """
    shares = layer_shares(tensors, momenta if redistribution == "momentum" else None)
    dropped = []
    for tensor, share in zip(tensors, shares, strict=True):
        sparsity = 1 - len(tensor.active) / tensor.units
        crowded = sparsity < 0.2 and share > 1 / len(tensors)
        own = min(rate, sparsity) if crowded else rate
        dropped.append(drop_smallest(tensor, math.ceil(own * len(tensor.active))))
    room = [tensor.units - len(tensor.active) + len(d) for tensor, d in zip(tensors, dropped, strict=True)]
    counts = growth_counts(shares, sum(map(len, dropped)) + adjustment, room)
    return move(tensors, dropped, counts, momenta)


def layer_shares(tensors: Sequence[Masked], momenta: Sequence[Tensor] | None) -> list[float]:
    """share_l; without ``momenta`` proportional to the active units. They sum to 1."""
    if momenta is None:
        raw = [float(len(tensor.active)) for tensor in tensors]
    else:
        sums = fetch([t.magnitudes(m).sum(0, keepdim=True) for t, m in zip(tensors, momenta, strict=True)])
        raw = [float(s) / max(1, len(t.active)) for s, t in zip(sums, tensors, strict=True)]
    total = sum(raw)
    return [value / total for value in raw] if total > 0 else [1 / len(raw)] * len(raw)


def growth_counts(shares: Sequence[float], total: float, room: Sequence[int]) -> list[int]:
    """Units that each layer grows of about ``total``, at most 0.99 of its ``room``."""
    limits = [0.99 * places for places in room]
    counts: list[float] = [math.ceil(share * max(0.0, total)) for share in shares]
    for _ in range(1000):  # as published; the excess may shrink for ever
        excess = sum(max(0.0, count - limit) for count, limit in zip(counts, limits, strict=True))
        counts = [min(count, limit) for count, limit in zip(counts, limits, strict=True)]
        if excess == 0 or counts == limits:
            break
        counts = [count + excess / len(counts) for count in counts]
    return [math.floor(min(count, limit)) for count, limit in zip(counts, limits, strict=True)]


@dataclass
class Balance:
    """Keeps the number of active units near ``target``, which rounding and caps miss at every event."""

    target: int
    adjustment: float = 0.0
    residuals: int = 0  # sum over events
    events: int = 0

    def update(self, active: int) -> None:
        residual = self.target - active
        self.residuals += residual
        self.events += 1
        self.adjustment = self.adjustment / 4 + 0.75 * residual + self.residuals / self.events


@dataclass(eq=False)
class Snfs(SparseHook):
    """Sparse momentum: drop the smallest weights, grow across layers where the momentum is large.

    The optimizer's own momentum is kept dense: it sees the gradient of all weights, and the inactive ones are set back
    to 0 after every update. A unit that grows goes on with the momentum it has. The number of active units varies a
    little around the one at the start. Put ``ema`` after it.
    """

    exercise = {"period": 2}
    momentum: ClassVar[str] = "legacy"  # no unit's momentum is ever set to 0

    period: Annotated[int | When, Range(least=0), "steps between two events; 0 = at the end of every epoch"] = 0
    rate: Annotated[float, Range(above=0, most=1), "share of a layer's units removed, at the start"] = 0.5
    final_rate: Annotated[float, Range(least=0, most=1), "and at the end of training"] = 0.005
    redistribution: Annotated[Redistribution, "a layer grows by its momentum, or by its active units"] = "momentum"

    def check(self, config: Config) -> None:
        if config.optimizer == "sgd" and config.momentum == 0:
            raise UsageError("momentum=0: leaves snfs nothing to grow by; give momentum=0.9, or use rigl")

    def setup(self, run: Run) -> None:
        self.check(run.config)
        super().setup(run)
        self._balance: Balance | None = None  # known once masks are final

    @property
    def balance(self) -> Balance:
        if self._balance is None:
            self._balance = Balance(sum(len(tensor.active) for tensor in self.tensors))
        return self._balance

    def never(self, run: Run) -> str:
        steps = run.epochs * run.steps_per_epoch
        period = every(self.period, run.epochs, run.steps_per_epoch) if self.period else run.steps_per_epoch
        if not self.counts or period < steps:
            return ""
        told = f"{period} steps" if self.period else "epoch"
        return f"an event comes after every {told} but not after the last step, {steps}"

    def wants_dense_gradient(self, run: Run) -> bool:
        return True

    def grads(self, run: Run) -> None:
        """Gradients stay dense, for the momentum; ``step_end`` sets inactive weights to 0."""

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        total = run.epochs * run.steps_per_epoch
        period = every(self.period, run.epochs, run.steps_per_epoch) if self.period else 0
        due = self._late or (run.step % period == 0 if period else run.batch == run.steps_per_epoch)
        if not self.tensors or not due or run.step == total:  # nothing could use what grows after the last update
            return
        if self.put_off(run, run.step - 1):
            return
        rate = annealed_rate(run.step, total, self.rate, self.final_rate)
        momenta = [momentum_of(run.optimizer, tensor.weight) for tensor in self.tensors]
        momenta = [
            torch.zeros_like(tensor.weight) if momentum is None else momentum
            for tensor, momentum in zip(self.tensors, momenta, strict=True)
        ]
        balance = self.balance
        event = snfs_step(self.tensors, momenta, rate, balance.adjustment, self.redistribution)
        balance.update(sum(len(tensor.active) for tensor in self.tensors))
        self.changed(run, event)
        self.log_event(run, event.pruned_count, event.grown_count, rate=rate, adjustment=balance.adjustment)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"balance": asdict(self.balance)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._balance = Balance(**state["balance"])
