"""Gradual pruning: a dense network loses its smallest weights in n steps until it is as sparse as asked for.

With S the final sparsity and d_k the density (share of active units) after k of n prunes:

    exponential    d_k = (1 - S)^(k/n)                 every prune takes the same share of what is left
    cubic          d_k = 1 - S + S (1 - k/n)^3         Zhu & Gupta 2017 (arXiv 1710.01878)

Every layer is pruned by itself, never globally, and nothing grows. The iterative pruning of Mostafa and Wang 2019
(arXiv 1902.05967) prunes a trained network at the ends of the epochs e0, e0 + q, ..., e0 + q (n - 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from research.checkpoints import weights
from research.devices import fetch
from research.errors import UsageError
from research.hooks.base import Reasons, Source
from research.hooks.sparse.base import MaskHook, sparsity_of_layers, units_of
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.distributions import uniform_count
from research.hooks.sparse.events import Event
from research.layers.masked import Masked, Site, masks_among
from research.parameters.signatures import Range
from research.parameters.when import When, in_steps

if TYPE_CHECKING:
    from research.config import Config
    from research.runs.run import Run

Kind = Literal["exponential", "cubic"]


def prune_schedule(kind: Kind, S: float, n: int) -> list[float]:
    """Densities d_0 = 1, d_1, ..., d_n = 1 - S."""
    if kind == "exponential":
        return [(1 - S) ** (k / n) for k in range(n + 1)]
    return [1 - S + S * (1 - k / n) ** 3 for k in range(n + 1)]


def prune_counts(units: int, densities: Sequence[float], legacy: bool = False) -> list[int]:
    """Active units of a layer with ``units`` of them after every prune: d_k N, rounded down.

    ``legacy`` is the published code: each prune kills int(f M) + 1 of M units with f = 1 - d_k / d_(k-1), so that the
    end is a little sparser than asked for.
    """
    if not legacy:
        return [uniform_count(units, 1 - density) for density in densities]
    counts = [units]
    for before, after in pairwise(densities):
        counts.append(max(0, counts[-1] - int((1 - after / before) * counts[-1]) - 1))
    return counts


def spare_last(S: float, units: Mapping[str, int], last: str, most: float) -> dict[str, float]:
    """The sparsity of each layer when the layer ``last`` gets ``most`` and the others so much more that S stays.

    Args:
        units: of each layer, ``last`` among them; several.

    Raises:
        UsageError: nothing would be left of the others.
    """
    total, spared = sum(units.values()), units[last]
    others = 1 - ((1 - S) * total - (1 - most) * spared) / (total - spared)
    if others >= 1:
        raise UsageError(
            f"prune.last={most:g}: keeps {(1 - most) * spared:,.0f} units of {last}, and sparsity {S:g} leaves "
            f"{(1 - S) * total:,.0f} in all; give more"
        )
    return {name: most if name == last else others for name in units}


def prune_step(tensors: Sequence[Masked], counts: Sequence[int]) -> Event:
    """Kill the smallest units of each tensor until ``counts`` are active; ``tensors`` are changed in place."""
    killed = fetch([drop_smallest(t, max(0, len(t.active) - count)) for t, count in zip(tensors, counts, strict=True)])
    nothing = [units.new_empty(0) for units in killed]
    for tensor, units, none in zip(tensors, killed, nothing, strict=True):
        tensor.change(units, none)
    return Event(killed, nothing)


@dataclass(eq=False)
class Prune(MaskHook):
    """Prune the smallest weights of each layer, step by step, of a trained network or of one in training.

    By default the prunes are spread evenly over a part of training (gradual magnitude pruning); with ``every`` they
    come at the ends of epochs, before these are evaluated. The best result counts from the newest prune on, so that
    ``best.safetensors`` has the final sparsity.
    """

    draws = False

    sparsity: Annotated[float, Range(least=0, below=1), "S, share of the units that are 0 at the end"] = 0.9
    sparsity_fc: Annotated[float | None, Range(least=0, below=1), "that of matrices; none = sparsity"] = None
    sparsity_conv: Annotated[float | None, Range(least=0, below=1), "that of kernels; none = sparsity"] = None
    last: Annotated[float, Range(least=0, most=1), "the last matrix gets no sparser than this, the others make up"] = (
        1.0
    )
    kind: Annotated[Kind, "how the density falls"] = "cubic"
    iterations: Annotated[int, Range(least=1), "n, prunes in all"] = 20
    begin: Annotated[float | When, Range(least=0, below=1), "share of training before the ramp begins"] = 0.0
    end: Annotated[float | When, Range(above=0, below=1), "share of training when it is done"] = 0.75
    every: Annotated[int | When, Range(least=0), "q, prune every q epochs, not along begin and end; 0 = do not"] = 0
    start_epoch: Annotated[
        int | When, Range(least=0), "e0, with every: the epoch (from 0) that ends with a prune first; or when that is"
    ] = 0
    start_from: Annotated[str, "run, or file of weights, to start from; empty = initial weights"] = ""
    legacy: Annotated[bool, "kill int(f M) + 1 units at a time, as the published code does"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.begin, str) or isinstance(self.end, str)) and self.begin >= self.end:
            raise UsageError(f"begin={self.begin:g}: must be below end={self.end:g}")

    @property
    def dense(self) -> bool:
        return not (self.sparsity or self.sparsity_fc or self.sparsity_conv)

    def idle(self) -> Reasons:
        reasons = {p: why for p, why in super().idle().items() if p != "start_from"}  # also without a mask
        if not self.dense:
            reasons["momentum"] = "what is killed never grows again"
            if self.every:
                reasons |= dict.fromkeys(("begin", "end"), f"prunes come at ends of epochs, with every={self.every}")
            else:
                reasons["start_epoch"] = "it belongs to every=…; without it prunes come along begin and end"
            if None not in (self.sparsity_fc, self.sparsity_conv):
                reasons["sparsity"] = "sparsity_fc and sparsity_conv say it of every layer"
        return reasons

    def idle_in(self, run: Run) -> Reasons:
        reasons = dict(super().idle_in(run))
        if self.counts and not self.spared:
            reasons["last"] = "there are no two matrices, or the last one is to get no sparser than this anyway"
        return reasons

    def initial_counts(self, sites: Mapping[str, Site]) -> dict[str, int]:
        units = {name: units_of(site, self.granularity) for name, site in sites.items()}
        targets = self.targets(sites, units)
        self.ramps = [  # in the order of the tensors
            prune_counts(units[name], prune_schedule(self.kind, S, self.iterations), self.legacy)
            for name, S in targets.items()
            if S
        ]
        return {name: units[name] for name, S in targets.items() if S}

    def targets(self, sites: Mapping[str, Site], units: Mapping[str, int]) -> dict[str, float]:
        """The final sparsity of each layer."""
        targets = sparsity_of_layers(sites, self.sparsity, self.sparsity_fc, self.sparsity_conv)
        matrices = {name: units[name] for name, site in sites.items() if site.linear}
        last = list(matrices)[-1] if len(matrices) > 1 else None
        self.spared = bool(last) and targets[last] > self.last
        if self.spared:
            targets |= spare_last(targets[last], matrices, last, self.last)
        return targets

    def check(self, config: Config) -> None:
        if not any(str(when).endswith("it") for when in (self.begin, self.end, self.every, self.start_epoch)):
            self.prune_steps(config.total_epochs, steps_per_epoch=1)

    def check_network(self, run: Run) -> None:
        super().check_network(run)
        self.prune_steps(run.epochs, run.steps_per_epoch)

    def sources(self, config: Config) -> dict[str, Source]:
        return {"start_from": Source(self.start_from, wants="weights")} if self.start_from else {}

    def setup(self, run: Run) -> None:
        self.plan = self.prune_steps(run.epochs, run.steps_per_epoch)
        if self.start_from:  # masks are the run's own
            masks = masks_among(run.model.state_dict())
            weights.load_into(
                run.model, run.sources[self]["start_from"] | masks, f"prune.start_from={self.start_from!r}"
            )
        super().setup(run)

    def prune_steps(self, epochs: int, steps_per_epoch: int) -> list[int]:
        """Numbers of updates after which the n prunes come.

        Raises:
            UsageError: they do not fit into the epochs.
        """
        n, total = self.iterations, epochs * steps_per_epoch
        if not self.every:
            begin, end = (
                in_steps(when, "share", epochs, steps_per_epoch) / total if isinstance(when, str) else when
                for when in (self.begin, self.end)
            )
            if not begin < end <= 1:
                raise UsageError(f"prune.begin={self.begin}: must come before end={self.end} in training")
            return [round(total * (begin + (end - begin) * k / n)) for k in range(1, n + 1)]
        if isinstance(self.every, str) or isinstance(self.start_epoch, str):
            return self.steps_by_time(epochs, steps_per_epoch)
        last = self.start_epoch + self.every * (n - 1)
        if last >= epochs:
            raise UsageError(
                f"epochs={epochs}: the last of {n} prunes comes at the end of epoch {last} (start_epoch="
                f"{self.start_epoch} + every={self.every} x {n - 1}); give epochs={last + 1} and as many as follow it"
            )
        return [(self.start_epoch + self.every * k + 1) * steps_per_epoch for k in range(n)]

    def steps_by_time(self, epochs: int, steps_per_epoch: int) -> list[int]:
        """The result of :meth:`prune_steps` if the first prune or the time between two is given with a unit."""
        first = self.start_epoch if isinstance(self.start_epoch, str) else self.start_epoch + 1
        first, apart = (in_steps(when, "ep", epochs, steps_per_epoch) for when in (first, self.every))
        steps = [round(first + apart * k) for k in range(self.iterations)]
        if steps[-1] > epochs * steps_per_epoch:
            raise UsageError(
                f"epochs={epochs}: the last of {self.iterations} prunes comes after step {steps[-1]} "
                f"(start_epoch={self.start_epoch}, every={self.every}); the run has {epochs * steps_per_epoch} steps"
            )
        return steps

    def step_end(self, run: Run) -> None:
        super().step_end(run)
        if not self.tensors or run.step not in self.plan:
            return
        done = sum(step <= run.step for step in self.plan)
        event = prune_step(self.tensors, [counts[done] for counts in self.ramps])
        self.changed(run, event)
        self.log_event(run, event.pruned_count, event.grown_count)
        run.best_top1 = -math.inf
