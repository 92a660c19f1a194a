"""The cost of the network that parameters of a run describe, without its data: what `research count` shows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from research.config import Config
from research.data.datasets import describe
from research.errors import UsageError
from research.layers.substitute import Report, substitute
from research.measures.cost import Cost, count
from research.models import create_model, known_for


@dataclass(frozen=True)
class Counted:
    """The network with its own layers, and with its substitutes where the run has some."""

    config: Config
    input_shape: tuple[int, ...]
    own: Cost
    cost: Cost
    report: Report | None

    def table(self) -> Iterator[dict[str, Any]]:
        """A row for every layer that has parameters or costs operations."""
        for row in self.cost.rows:
            if row.params or row.mult_adds:
                g = row.geometry
                yield {
                    "layer": row.layer,
                    "type": row.kind,
                    "in": g.c_in if g else "",
                    "out": g.c_out if g else "",
                    "kernel": "x".join(map(str, g.kernel)) if g else "",
                    "output": "x".join(map(str, row.output)) if row.output else "not used",
                    "params": f"{row.params:,}",
                    "nonzeros": f"{row.nonzeros:,}",
                    "mult-adds": f"{row.mult_adds:,.0f}",
                }


def count_run(
    given: Mapping[str, Any],
    input_shape: tuple[int, ...] | None = None,
    legacy: Collection[str] = (),
    allow_ignored: bool = False,
) -> Counted:
    """Count what a run with the parameters ``given`` would train.

    The input is that of the data set, if ``given`` names one, else of the data that the network is known for;
    ``input_shape`` (C, H, W) wins. ``legacy`` and ``allow_ignored``: see :func:`research.measures.cost.count`.

    Raises:
        UsageError: wrong parameters, or a network that cannot be counted.
    """
    config = Config.load(given)
    classes, shape = known_for(config.model)
    if "dataset" in given:
        data = describe(config.dataset)
        classes, shape = data.classes or classes, data.shape
    shape = tuple(input_shape or shape)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = create_model(config.model, classes, shape, **config.model_args)
            own = count(model, shape, legacy, allow_ignored)
            report = substitute(model, config.substitute, shape)
    except RuntimeError as error:
        raise UsageError(f"model={config.model!r}: cannot take inputs of shape {shape}: {error}") from error
    return Counted(config, shape, own, count(model, shape, legacy, allow_ignored) if report else own, report)
