"""Candidate networks before any is trained: what they cost and score, ranked, and which score to trust when.

A candidate is what a run would train: its network with substitutes, first weights and first masks.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from research.config import Config
from research.data.choice import make_loader
from research.errors import Note, UsageError
from research.frames.comparison import CANNOT_TELL
from research.frames.statistics.bootstrap import rank_correlation
from research.frames.statistics.t_tests import holm
from research.frames.tables import interval, p_value
from research.hooks import HOOKS
from research.hooks.gram import nmi_anisotropy
from research.layers.masked import masked_weights
from research.measures import zero_cost
from research.measures.cost import count
from research.measures.ldi import ldi, sequence_ldi
from research.measures.nn_mass import nn_density, nn_mass
from research.network_protocols import WithStates
from research.plugins.scope import with_its_plugins
from research.runs.network import network_of
from research.terminal import bar_class, bar_interval

IMAGES = 128  # of the first training batches; the same for all candidates on one data set
SIZE = {"params": "parameters", "mult_adds": "mult-adds"}  # parameters that a mask leaves, and all of dense layers
SCORES = {
    "density": "density",
    "nn_mass": "NN-Mass",
    "nn_density": "NN-density",
    "ldi": "LDI",
    "nmi_anisotropy": "NMI anisotropy",
    "gradient_norm": "gradient norm",
    "synflow": "SynFlow, log10",
    "naswot": "NASWOT",
}
MEASURES = SIZE | SCORES


class Candidate(NamedTuple):
    """A network to be: the run's name, what it shares with its other seeds, and its Config."""

    name: str
    arm: str
    config: Config


def measured(candidates: Iterable[Candidate]) -> pd.DataFrame:
    """A row a candidate: run, arm, seed, MEASURES (NaN where one is not defined) and the seconds that they took.

    All are measured at the same first ``IMAGES`` training images of their data set, as they are augmented. A candidate
    whose first weights or masks come from another run is left out, with a note.
    """
    rows, images = [], {}
    for name, arm, config in bar_class()(
        list(candidates), desc="measuring", unit="network", mininterval=bar_interval(), delay=bar_interval()
    ):
        if borrowed := _borrowed(config):
            warnings.warn(f"{name} is left out: {borrowed}", Note, stacklevel=2)
            continue
        which = (config.dataset, repr(config.data_args), config.data_root)
        if which not in images:
            images[which] = _first_images(config)
        classes, x, targets = images[which]
        started = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            network = network_of(config, classes, tuple(x.shape[1:]), torch.device("cpu"))
            found = scores_of(network, x, targets)
        rows.append({"run": name, "arm": arm, "seed": config.seed} | found)
        rows[-1]["seconds"] = time.perf_counter() - started
    return pd.DataFrame(rows, columns=["run", "arm", "seed", *MEASURES, "seconds"])


def scores_of(network: nn.Module, x: Tensor, targets: Tensor) -> dict[str, float]:
    """The MEASURES of ``network`` at inputs ``x`` (B, ...) of classes ``targets`` (B); NaN where one is not defined."""
    cost = count(network, tuple(x.shape[1:]), allow_ignored=True)
    masked_away = sum((tensor.units - len(tensor.active)) * tensor.unit_size for tensor in masked_weights(network))
    found = {"params": cost.params - masked_away, "mult_adds": cost.mult_adds}
    found["density"] = found["params"] / max(cost.params, 1)
    found |= {"nn_mass": _if_defined(nn_mass, network), "nn_density": _if_defined(nn_density, network)}
    found["ldi"] = _if_defined(_ldi, network, x)
    found["nmi_anisotropy"] = nmi_anisotropy(network, x)
    found["gradient_norm"] = zero_cost.gradient_norm(network, x, targets)
    found["synflow"] = zero_cost.synflow(network, tuple(x.shape[1:]))
    found["naswot"] = zero_cost.naswot(network, x)
    return found


def trust(table: pd.DataFrame, result: str = "top1") -> pd.DataFrame:
    """How well each of MEASURES tells ``result``, over the arms of ``table``, each the mean of its seeds.

    Columns: measure, n (arms); ``alone low high p``: Spearman's correlation; ``given_size given_low given_high
    given_p``: the partial one, with parameters and mult-adds (ranks) taken out, since a score that grows with the
    network is no news; ``says``. Intervals: 95 %, bootstrap over arms; p adjusted over all rows of a kind (Holm).

    Raises:
        UsageError: fewer than four arms have a result.
    """
    means = table.groupby("arm", sort=False)[[*MEASURES, result]].mean().dropna(subset=[result])
    if len(means) < 4:
        raise UsageError(f"{len(means)} trained networks: a rank correlation takes at least four different ones")
    size = means[[name for name in SIZE if means[name].nunique() > 1]]
    rows = []
    for name in MEASURES:
        if means[name].nunique() < 2:
            continue
        alone = rank_correlation(means[name], means[result])
        row = {"measure": name, "n": alone.n, "alone": alone.value, "low": alone.low, "high": alone.high, "p": alone.p}
        given = rank_correlation(means[name], means[result], size.drop(columns=name, errors="ignore"))
        row |= {"given_size": given.value, "given_low": given.low, "given_high": given.high, "given_p": given.p}
        rows.append(row)
    found = pd.DataFrame(rows)
    found = found.assign(p=holm(found["p"]), given_p=holm(found["given_p"]))
    return found.assign(says=[_said(row) for row in found.itertuples()])


def _said(row) -> str:
    if row.measure in SIZE:
        return "size"
    if row.given_p <= 0.05:
        return "more than size" if row.given_size > 0 else "more than size, the other way round"
    return "no more than size" if row.p <= 0.05 else CANNOT_TELL


def trust_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`trust` to be read: a measure a row, "value [low, high]" alone and with its size taken out."""
    alone = [interval(row.alone, row.low, row.high) for row in found.itertuples()]
    given = [interval(row.given_size, row.given_low, row.given_high) for row in found.itertuples()]
    told = {"measure": [MEASURES[name] for name in found["measure"]], "n": found["n"], "alone": alone}
    told |= {"p": map(p_value, found["p"]), "given parameters and mult-adds": given}
    return pd.DataFrame(told | {"p given": map(p_value, found["given_p"]), "tells": found["says"]})


def ranked(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """A row an arm, best first by the mean of ``by`` over its seeds; with the means of all else and ``seeds``."""
    grouped = table.groupby("arm", sort=False)
    means = grouped.mean(numeric_only=True).drop(columns="seed")
    return means.assign(seeds=grouped.size()).sort_values(by, ascending=False, kind="stable").reset_index()


def _ldi(network: nn.Module, x: Tensor) -> float:
    if isinstance(network, WithStates):
        return ldi(network, x.flatten(1)).mean
    if isinstance(network, nn.Sequential):
        return sequence_ldi(network, x).mean
    raise UsageError("LDI is defined for linear layers in a row")


def _if_defined(measure: Callable[..., float], *given: object) -> float:
    try:
        return measure(*given)
    except UsageError:
        return float("nan")


@with_its_plugins
def _borrowed(config: Config) -> str:
    """What of the first network comes from another run; "" when nothing does."""
    if config.init or config.continue_from:
        return "it starts from the weights of another run"
    for name, given in config.hooks.items():
        for parameter, source in HOOKS[name](**given).sources(config).items():
            if source.wants != "network":  # a teacher changes nothing of the network itself
                return f"{name}.{parameter} takes the {source.wants} of {source.place}"
    return ""


@with_its_plugins
def _first_images(config: Config) -> tuple[int, Tensor, Tensor]:
    loader = make_loader(replace(config, seed=0, order_seed=None), "train")
    loader.set_epoch(0)
    batches = loader.head(-(-IMAGES // config.batch_size))
    inputs, targets = (torch.cat(part)[:IMAGES] for part in zip(*batches, strict=True))
    classes = loader.info.classes
    loader.close()
    return classes, inputs.float().contiguous(), targets  # some networks take no channels_last
