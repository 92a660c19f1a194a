"""What a run may have, methods, substitutes and settings, and runs of moments with any of them together."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from allpairspy import AllPairs
from invariants import Closing, Opening
from overflow import Overflow
from plain_network import ACTING, PlainNetwork
from torch.multiprocessing import start_processes

from research.config import Config
from research.data import synthetic
from research.distributed import destroy_distributed, init_distributed, of_rank_0
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.layers.families import LAYERS
from research.models import MODELS
from research.runs.metrics import read_rows
from research.runs.run import Run
from research.studies.population import fit_population, stackable
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.stacked import StackedTraining

IMAGES = 400  # of the digits: five steps of 64 an epoch
CUT = 7  # in the second epoch, a step after a checkpoint
CLOCKS = {"seconds", "images_per_second", "data_wait", "peak_memory"}
BASE = {
    "dataset": "digits",
    "model": "plain",
    "model_args": {"norm": True},
    "epochs": 2,
    "batch_size": 64,
    "lr": 0.02,
    "channels_last": False,
    "device": "cpu",
    "threads": 1,
    "log_interval": 6,
    "checkpoint_minutes": 0,
}
MASKS = [name for name, hook in HOOKS.items() if hook.exclusive == "masks"]
MORE = {name: {"sparsity": 0.7} for name in MASKS}  # of layers with few weights
MORE["static_sparse"] |= {"l1": 1e-3}
MORE["deepr"] |= {"eta": 1.0, "temperature": "1"}
MORE["distill"] = {"beta": 10.0}  # of maps this small
METHODS = {name: {"hooks": {name: given | MORE.get(name, {})}} for name, given in ACTING.items()}
SUBSTITUTES = {name: {"substitute": name} for name in LAYERS}
SETTINGS = {
    "accumulation": {"accumulation": 2},
    "clip_norm": {"clip_norm": 0.5},
    "smoothing": {"smoothing": 0.1},
    "mixup": {"data_args": {"mixup": 0.4}},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "amp=bf16": {"amp": "bf16"},
    "amp=fp16": {"amp": "fp16", "hooks": {"overflow": {}}},  # a step is skipped, in which most methods have an event
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "processes=2": {"processes": 2},
    "population": {"model": "dense_mlp", "model_args": {"width": 6, "depth": 4}},
}
MEMBERS: dict[str, dict[str, Any]] = METHODS | SUBSTITUTES | SETTINGS
ONE_VALUE = [set(SUBSTITUTES), {"amp=bf16", "amp=fp16"}]
"""Members that are values of one parameter, which has one: no two of them are a pair."""
COLUMNS = {"compile", "processes=2", "population"}
"""Members that are slow, or refused beside nearly everything: tried with one other at a time."""
PAIRS = [pair for pair in combinations(MEMBERS, 2) if not any(set(pair) <= values for values in ONE_VALUE)]


class Snapshot(Hook):
    """Keeps a run as a power cut after step ``CUT`` would leave it, in a folder beside it."""

    def step_end(self, run):
        if run.step == CUT and run.rank == 0 and not run.name.endswith("-cut"):
            shutil.copytree(run.dir, beside(run.dir))


def beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-cut")


WATCHING = {"opening": Opening, "closing": Closing, "snapshot": Snapshot, "overflow": Overflow}


@contextmanager
def registered() -> Iterator[None]:
    """A context in which configs may name the small network and the methods that watch, and a run takes a moment."""
    images, labels = synthetic.digits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "plain", PlainNetwork)
        for name, hook in WATCHING.items():
            patch.setitem(HOOKS, name, hook)
        # traced and differentiated ahead as ever, without the minutes of a C++ compiler
        patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
        patch.setattr(synthetic, "digits", lambda: (images[:IMAGES], labels[:IMAGES]))
        patch.setattr(os, "fsync", lambda descriptor: None)  # power is cut by copying a folder here
        yield


def given(members: Iterable[str], watched: bool = True) -> dict[str, Any]:
    """The parameters of a run with ``members``, methods in this order; ``watched`` by the methods that watch."""
    told: dict[str, Any] = {"hooks": {"opening": {}} if watched else {}}
    for name in members:
        for key, value in MEMBERS[name].items():
            told[key] = told.get(key, {}) | value if isinstance(value, Mapping) else value
    if watched:
        told["hooks"] |= {"closing": {}, "snapshot": {}}
    else:
        told["hooks"] = {name: own for name, own in told["hooks"].items() if name not in WATCHING}
    if "model" in told:
        return BASE | told
    return BASE | told | {"model_args": BASE["model_args"] | told.get("model_args", {})}


def refusal(members: Iterable[str]) -> str:
    """Why a run with ``members`` is refused before it is made; empty if it is not."""
    try:
        config = Config.load(given(members, watched=False))
        if "population" in members:
            stackable([config])
        preflight(config, devices=False)
    except UsageError as error:
        return str(error)
    return ""


class Ended(NamedTuple):
    """How a run ended: all that it would go on with, and its rows without times and notes."""

    state: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Run) -> Ended:
        state = {name: getattr(run, name).state_dict() for name in ("model", "optimizer", "scaler")}
        state |= {name: hook.state_dict() for name, hook in run.hooks.items()} | {"best top-1": run.best_top1}
        rows = [row for row in read_rows(run.paths.metrics) if row["kind"] != "note"]
        return cls(state, [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows])

    @property
    def kinds(self) -> set[str]:
        return {row["kind"] for row in self.rows}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def ended(members: Iterable[str], folder: Path) -> Ended:
    """A run with ``members``, not watched."""
    members = list(members)
    place = {"runs": str(folder), "name": "-".join(members)}
    return Ended.of(fit(Run.create(Config.load(given(members, watched=False), place))))


def trained(members: Iterable[str], folder: Path, rank: int = 0, world: int = 1) -> Ended:
    """A run with ``members``: it trains, what holds for each holds, none stands idle, and it resumes bit for bit.

    On several processes, which all call this, all end with the same weights.
    """
    members = list(members)
    config = Config.load(given(members), {"runs": str(folder), "name": "-".join(members)})

    def fitted(run: Run) -> Run:
        run.rank, run.world = rank, world
        return fit(run)

    run = fitted(Run.create(config))
    idle = {name: why for name, hook in run.hooks.items() if (why := hook.undone(run))}
    assert not idle, idle
    whole = Ended.of(run)
    if world > 1:
        first = of_rank_0({name: p.detach() for name, p in run.model.named_parameters()})
        assert same(first, dict(run.model.named_parameters())), "weights of the processes"
    resumed = Ended.of(fitted(Run.open(beside(run.dir))))
    for name in whole.state:
        assert same(whole.state[name], resumed.state[name]), f"{name} of the resumed run"
    assert whole.rows == resumed.rows, "rows of the resumed run"
    torch.compiler.reset()
    return whole


def trained_stacked(members: Iterable[str], folder: Path) -> None:
    """A population with ``members``: its networks are those trained one by one, and it resumes bit for bit."""

    def configs(place: str) -> list[Config]:
        common = given(members, watched=False) | {"runs": str(folder / place)}
        return [Config.load(common, {"seed": seed, "name": f"seed-{seed}"}) for seed in range(2)]

    save = StackedTraining.save

    def snapshot(training: StackedTraining) -> None:
        save(training)
        if training.lead.step == CUT - 1:
            shutil.copytree(folder / "together", folder / "cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackedTraining, "save", snapshot)
        together = fit_population(configs("together"))
    for one, alone, resumed in zip(together, configs("alone"), fit_population(configs("cut")), strict=True):
        assert same(Ended.of(one), Ended.of(resumed)), "the resumed population"
        for name, weight in fit(Run.create(alone)).model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def train_on_processes(rank: int, world: int, port: int, folder: Path, every: list[list[str]]) -> None:
    """One process of runs with each of ``every`` members."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    init_distributed(torch.device("cpu"))
    with registered():
        for members in every:
            trained(members, folder, rank, world)
    destroy_distributed()


def on_two_processes(every: list[list[str]], folder: Path) -> None:
    """Train with each of ``every`` members on two processes, as :func:`trained` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_processes(train_on_processes, (2, port, folder, every), nprocs=2, start_method="spawn")


def companies(n: int) -> list[list[str]]:
    """Members in companies, those that cover most first: any two that may meet are in one; of n = 3, most triples."""
    switches = [name for name in MEMBERS if name not in {*MASKS, *COLUMNS, *set().union(*ONE_VALUE)}]
    factors = [["", *MASKS], ["", *SUBSTITUTES], ["", "amp=bf16", "amp=fp16"], *(["", name] for name in switches)]
    factors.append(["forwards", "backwards"])
    found = []
    for row in AllPairs(factors, n=n):
        members = [name for name in MEMBERS if name in row]
        found.append(members if row[-1] == "forwards" else members[::-1])
    return found
