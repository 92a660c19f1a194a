"""What the training loop costs over a bare one, and what each method adds to a step: time and memory.

python tests/benchmarks/loop.py [--only loop methods] [--models mnist_mlp resnet20] [--rounds 15]

The bare loop has the same batches and network and nothing around them. Each way is a process of its own, as a run is;
processes take turns in pairs, so that neighbours on the machine hurt both alike: ratios are of CPU time within a pair.
"""

import argparse
import io
import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from statistics import median, quantiles
from time import process_time
from typing import Any
from unittest import mock

import numpy as np
import torch
from pairs import peak_memory
from torch.nn import functional as F

from research.config import Config
from research.data.augment import Augment
from research.data.loader import DataInfo, Share
from research.data.memory_loader import Images, MemoryLoader
from research.processes import keep_freed_memory
from research.runs.run import Run
from research.training.loop import train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare
from research.training.schedule import learning_rate

MODELS = {"mnist_mlp": ((1, 28, 28), 20), "resnet20": ((3, 32, 32), 2)}  # shape of an image, steps of a measurement
SPARSE = {"sparsity": 0.98}
METHODS: dict[str, dict[str, Any]] = {
    "ema": {"ema": {}},
    "tied": {"tied": SPARSE},
    "static_sparse": {"static_sparse": SPARSE},
    "set": {"set": SPARSE},
    "rigl": {"rigl": SPARSE},
    "itop": {"itop": SPARSE},
    "snfs": {"snfs": SPARSE},
    "dsr": {"dsr": SPARSE},
    "dsr, l1": {"dsr": SPARSE | {"l1": 1e-4}},
    "deepr": {"deepr": SPARSE},
    "deepr, l1": {"deepr": SPARSE | {"l1": 1e-5}},
    "power_grad": {"power_grad": {}},
    "logit_stats": {"logit_stats": {}},
}
Row = dict[str, Any]


def prepared(model: str, batch: int, steps: int = 0, **given: Any) -> tuple[Run, Meter]:
    """A run before its first step on random images of the shape of MNIST or CIFAR-10, a few batches an epoch."""
    (shape, few), random = MODELS[model], np.random.default_rng(0)
    steps = steps or few
    images = steps * batch
    info = DataInfo("noise", 10, shape, (0.5,) * shape[0], (0.25,) * shape[0], images, batch)
    pixels = random.integers(0, 256, (images, *shape[1:], shape[0]), dtype=np.uint8)
    stored = Images.of_one_size(pixels, random.integers(0, 10, images))
    loaders = {s: MemoryLoader(info, Share(s, 0, 1, batch, 0), stored, Augment(), "cpu") for s in ("train", "val")}
    base = {"model": model, "device": "cpu", "batch_size": batch, "epochs": 1000, "threads": 1}
    run = Run.create(Config.load(base, {"runs": tempfile.mkdtemp()}, given))
    with mock.patch("research.training.prepare.make_loaders", lambda *_, **__: loaders):
        prepare(run)
    with redirect_stdout(io.StringIO()):  # notes
        for hook in run.hooks.values():
            hook.epoch_start(run)
    return run, Meter(run)


def bare(run: Run, optimizer: torch.optim.Optimizer) -> None:
    """An epoch of the plainest loop."""
    run.model.train()
    run.train_loader.set_epoch(run.epoch)
    for inputs, targets in run.train_loader:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.config, run.step, run.steps_per_epoch)
        F.cross_entropy(run.model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.step += 1


def ours(run: Run, meter: Meter) -> None:
    """An epoch of the training loop."""
    run.batch = 0
    run.train_loader.set_epoch(run.epoch)
    train_epoch(run, meter)
    meter.new_epoch()


def serve(loop: str, model: str, batch: int, hooks: dict[str, Any], asked: Connection) -> None:
    """Answer each question with the CPU ms of a step, the last one with the peak memory of this process in MB.

    ``loop``: ``bare`` with PyTorch's SGD as it comes, ``bare, fused``, or ``ours`` as a process of a run has it.
    """
    torch.set_num_threads(1)
    if loop == "ours":
        keep_freed_memory()
    run, meter = prepared(model, batch, hooks=hooks)
    given = {"momentum": run.config.momentum, "weight_decay": run.config.weight_decay, "nesterov": True}
    optimizer = torch.optim.SGD(run.model.parameters(), 0.1, **given, fused="fused" in loop)
    epoch = partial(ours, run, meter) if loop == "ours" else partial(bare, run, optimizer)
    while asked.recv():
        started = process_time()
        epoch()
        asked.send(1e3 * (process_time() - started) / len(run.train_loader))
    asked.send(peak_memory())


class Way:
    """A process that trains in one way whenever it is called; CPU ms of a step."""

    def __init__(self, loop: str, model: str, batch: int, hooks: dict[str, Any] | None = None):
        processes = multiprocessing.get_context("spawn")
        self.pipe, there = processes.Pipe()
        self.process = processes.Process(target=serve, args=(loop, model, batch, hooks or {}, there), daemon=True)
        self.process.start()

    def __call__(self) -> float:
        self.pipe.send(True)
        return self.pipe.recv()

    def end(self) -> float:
        """Its peak memory in MB."""
        self.pipe.send(False)
        peak = self.pipe.recv()
        self.process.join()
        return peak


def compare(what: str, way: Way, first: Way, rounds: int) -> Row:
    """A way against the ``first`` one, beside each other in an order that is reversed from round to round, after a
    round that does not count: the median of the ratios with p10 and p90, the least ms, and the peak memory."""
    pairs = []
    for number in range(rounds + 1):
        order = (first, way) if number % 2 else (way, first)
        times = {each: each() for each in order}
        pairs.append((times[way], times[first]))
    ratios = sorted(own / other for own, other in pairs[1:])
    p10, *_, p90 = quantiles(ratios, n=10, method="inclusive")
    least, than = (min(column) for column in zip(*pairs[1:], strict=True))
    return {"what": what, "ratio": median(ratios), "p10": p10, "p90": p90, "ms": least, "its ms": than, "MB": way.end()}


def loop_rows(model: str, rounds: int) -> Iterator[Row]:
    """The loop against a bare one, batch 64."""
    first = Way("bare", model, 64)
    for what, loop in {
        "a bare loop again": "bare",
        "a bare loop, SGD fused": "bare, fused",
        "our loop": "ours",
    }.items():
        yield compare(what, Way(loop, model, 64), first, rounds)
    yield {"what": "a bare loop", "MB": first.end()}


def method_rows(model: str, rounds: int) -> Iterator[Row]:
    """Our loop with each method against our loop without one, batch 100; events come at the methods' own periods."""
    first = Way("ours", model, 100)
    for what, hooks in {"no method": {}, **METHODS}.items():
        yield compare(what, Way("ours", model, 100, hooks), first, rounds)
    yield {"what": "no method", "MB": first.end()}


def show(rows: Iterator[Row]) -> None:
    for row in rows:
        numbers = [f"{name} {value:.4g}" for name, value in row.items() if name != "what"]
        print(f"{row['what']:28s} {'  '.join(numbers)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=["loop", "methods"], default=["loop", "methods"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for part, rows in {"loop": loop_rows, "methods": method_rows}.items():
        for model in options.models if part in options.only else ():
            print(f"{part}, {model}: CPU ms of a step, ratio to the first; peak memory")
            show(rows(model, options.rounds))
