"""The cost of the network that the parameters of a run define, without its data."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from research.config import Config
from research.data.datasets import classes_and_shape, describe, input_shape
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.layers.substitute import Report
from research.measures.cost import Cost, count
from research.models import create_model, known_for
from research.plugins.scope import with_its_plugins
from research.runs.network import ScratchRun, build_network, network_of
from research.training.prepare import weight_decays


class NetworkCost(NamedTuple):
    """The cost of a configuration's network, and the distinct weight decays of its parameters, largest first."""

    cost: Cost
    decays: tuple[float, ...]


@with_its_plugins
def network_cost(config: Config) -> NetworkCost:
    """The network that runs of ``config`` train, counted for one of its inputs; built on the CPU, without data.

    Raises:
        UsageError: a data set whose classes are counted on disk, or layers that have no counting rule.
    """
    # initial values change no count, nor do methods that leave the network alone, whatever they start from
    hooks = {name: given for name, given in config.hooks.items() if HOOKS[name].build is not Hook.build}
    return _network_cost(json.dumps(replace(config, seed=0, name="", hooks=hooks).to_dict()))


@lru_cache(maxsize=64)
def _network_cost(stored: str) -> NetworkCost:
    config = Config.stored(json.loads(stored))
    classes, shape = classes_and_shape(config.dataset, config.data_args)
    model = network_of(config, classes, shape, torch.device("cpu"))
    decays = sorted(set(weight_decays(model, config).values()), reverse=True)
    return NetworkCost(count(model, shape), tuple(decays))


@dataclass(frozen=True)
class Counted:
    """The network with its own layers, and after the run's substitutes and methods have changed it."""

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
    given_shape: tuple[int, ...] | None = None,
    legacy: Collection[str] = (),
    allow_ignored: bool = False,
) -> Counted:
    """Count the network that a run with the parameters ``given`` trains, substitutes, masks and tied weights included.

    The input is that of the data set as it is augmented, if ``given`` or its recipe names one, else of the data that
    the network is known for; ``given_shape`` (C, H, W) wins. ``legacy`` and ``allow_ignored``: see
    :func:`research.measures.cost.count`.

    Raises:
        UsageError: wrong parameters, or a network that cannot be counted.
    """
    return _counted(Config.load(given), "dataset" in given, given_shape, legacy, allow_ignored)


@with_its_plugins
def _counted(
    config: Config,
    names_data: bool,
    given_shape: tuple[int, ...] | None,
    legacy: Collection[str],
    allow_ignored: bool,
) -> Counted:
    classes, shape = known_for(config.model)
    if names_data or config.dataset != Config.dataset:
        classes, shape = describe(config.dataset).classes or classes, input_shape(config.dataset, config.data_args)
    shape = tuple(given_shape or shape)
    run = ScratchRun(Path(config.runs), config)
    run.device = torch.device("cpu")
    try:
        with torch.random.fork_rng(devices=[]):
            plain = create_model(config.model, classes, shape, **config.model_args)
            own = count(plain, shape, legacy, allow_ignored)
            build_network(run, classes, shape)
            cost = count(run.model, shape, legacy, allow_ignored)
    except RuntimeError as error:
        raise UsageError(f"model={config.model!r}: cannot take inputs of shape {shape}: {error}") from error
    return Counted(config, shape, own, cost, run.substitution)
