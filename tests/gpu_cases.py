"""What has to work on a GPU, as cases for the pretended one of the suite and for a real one.

``python tests/gpu_cases.py`` prints for every method how often the host waits for the GPU, as it stands in
``research/hooks/README.md``.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pretend_cuda import pretend_cuda

from research.config import Config
from research.hooks import HOOKS
from research.runs.pulse import DONE, EPOCH_END, IN_STEP
from research.runs.run import Run
from research.training.loop import fit

# beyond what a contract test needs of a method, and what lets it act
MORE = {"distill": {"alpha": 0.5}, "drop_path": {"p": 0.2}, "gram": {"warmup": 0, "batches": 1}}
BESIDE: dict[str, dict[str, Any]] = {
    "auxiliary": {
        "model": "darts",
        "model_args": {"C": 2, "layers": 3},
        "data_args": {"image_size": 32},
        "batch_size": 512,
    },
    "drop_path": {"epochs": 2},
}
METHODS: dict[str, dict[str, Any]] = {
    name: {"hooks": {name: {**hook.exercise, **MORE.get(name, {})}}, **BESIDE.get(name, {})}
    for name, hook in HOOKS.items()
}
VARIANTS: dict[str, dict[str, Any]] = {  # of methods whose events differ from those of their defaults
    "rigl growth=random": {"hooks": {"rigl": {"period": 2, "growth": "random"}}},
    "itop growth=random": {"hooks": {"itop": {"period": 2, "growth": "random"}}},
    "snfs redistribution=nonzero": {"hooks": {"snfs": {"period": 2, "redistribution": "nonzero"}}},
    "dsr prune=exact": {"hooks": {"dsr": {"period": "2", "k": 200, "prune": "exact", "big_new_weights": True}}},
    "set granularity=2": {"hooks": {"set": {"period": "2", "granularity": 2}}},
    "dsr prune=fraction": {"hooks": {"dsr": {"period": "2", "prune": "fraction"}}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain training": {},
    "amp=bf16": {"amp": "bf16"},
    "amp=fp16": {"amp": "fp16"},
    "clip_norm": {"clip_norm": 1.0},
    "accumulation": {"accumulation": 2},
    "optimizer=adamw": {"optimizer": "adamw", "lr": 1e-3},
    "augmentation": {"data_args": {"crop": "pad", "padding": 1, "flip": True, "cutout": 2, "jitter": 0.2}},
    "resized": {"data_args": {"crop": "resized", "interpolation": "bicubic"}},
    "distill.cache": {"hooks": {"distill": {"alpha": 0.5, "cache": True}}},
    "vectors": {"dataset": "linear", "model": "mnist_mlp"},
    "together": {"epochs": 2, "amp": "bf16", "hooks": {"rigl": {"period": 2}, "gram": {}, "power_grad": {}}},
}


class Waits(NamedTuple):
    """How often the host waits for the GPU in a step, in one with an event, at a row, and beyond plain training an
    epoch; none where there is no such step."""

    step: int | None
    event: int | None
    row: int
    epoch: int


class RealGpu:
    """cuda:0, whose synchronisations torch itself reports; what the pretended one has of it."""

    def __init__(self, caught: list[warnings.WarningMessage]):
        self.caught = caught

    def taken(self) -> list[tuple[str, str]]:
        events = [(str(w.message), f"{w.filename}:{w.lineno}") for w in self.caught if "synchroniz" in str(w.message)]
        self.caught.clear()
        return events


@contextmanager
def gpu(device: str = "pretended") -> Iterator[Any]:
    """A context in which cuda:0 is the ``pretended`` GPU, or ``cuda:0`` as it is; its ``taken()`` lists host waits."""
    if device == "pretended":
        with pretend_cuda() as pretended:
            yield pretended
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield RealGpu(caught)
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Observer:
    """Stands where a run's pulse does, and sorts what the host waited for by what training was doing."""

    def __init__(self, run: Run, on: Any):
        self.gpu, self.stage, self.logged, self.waited = on, EPOCH_END, [], []
        self.steps: list[list] = []  # what each step without an event waited for
        self.events: list[list] = []  # and each with one
        self.rows: list[list] = []
        self.between: list = []
        self.epoch: list = []
        self.epochs = run.config.epochs
        log = run.log
        run.log = lambda kind, **values: (self.logged.append(kind), log(kind, **values))[1]
        run.pulse = self

    def beat(self, step: int, stage: int, part: int = 0) -> None:
        self.waited += self.gpu.taken()
        if self.stage == stage == IN_STEP:
            return
        if self.stage == IN_STEP:
            (self.events if "sparse_event" in self.logged else self.steps).append(self.waited)
        elif self.stage == DONE and "train" in self.logged:
            self.rows.append(self.waited)
        elif self.stage == DONE:  # the batch that comes next is awaited here
            self.between += self.waited
        else:
            self.epoch += self.waited
        self.stage, self.logged, self.waited = stage, [], []

    @property
    def waits(self) -> Waits:
        """The numbers, which have to be the same for all that is of one kind."""
        if self.between:
            raise AssertionError(f"between two steps: {self.between}")
        numbers = [only(of_kind) for of_kind in (self.steps, self.events, self.rows)]
        return Waits(*numbers, len(self.epoch) // self.epochs)


def only(waited: list[list]) -> int | None:
    found = {len(each): each for each in waited}
    if len(found) > 1:
        raise AssertionError(f"not always the same: {found}")
    return next(iter(found), None)


def train(folder: str, device: str = "pretended", **given: Any) -> tuple[Run, Observer]:
    """A run of a few steps on the embedded digits, trained on a GPU, and who watched it."""
    base = {"dataset": "digits", "model": "resnet8", "epochs": 1, "batch_size": 256, "device": "cuda", "lr": 0.05}
    base |= {"log_interval": 4, "threads": 1, "runs": folder}
    with gpu(device) as on:
        run = Run.create(Config.load(base, given))
        observer = Observer(run, on)
        fit(run)
        observer.beat(run.step, EPOCH_END)
    return run, observer


def waits(device: str = "pretended", cases: Mapping[str, dict] = METHODS | VARIANTS) -> dict[str, Waits]:
    """The waits of plain training and of ``cases``."""
    found = {}
    for name, given in {"plain training": {}, **cases}.items():
        with tempfile.TemporaryDirectory() as folder:
            own = train(folder, device, **given)[1].waits
        found[name] = own._replace(epoch=own.epoch - found["plain training"].epoch if found else own.epoch)
    return found


def table(found: Mapping[str, Waits]) -> list[str]:
    """The rows of a table in Markdown."""
    cells = ([name, *("" if n is None else str(n) for n in numbers)] for name, numbers in found.items())
    return [f"| {' | '.join(row)} |" for row in cells]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*table(waits()), sep="\n")
