"""What the training loop costs over a bare one, what each method adds to a step, and how much memory both take.

python tests/benchmarks/loop.py [--only loop methods memory] [--models mnist_mlp resnet20] [--rounds 15]

The bare loop has the same batches and network and nothing around them. Ways take turns, so that neighbours on the
machine hurt all alike; ratios are of CPU time within a round, of memory those of processes that do nothing else.
"""

import argparse
import io
import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from statistics import median, quantiles
from time import process_time
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from research.config import Config
from research.data.augment import Augment
from research.data.loader import DataInfo, Share
from research.data.memory_loader import Images, MemoryLoader
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
PARTS = ["loop", "methods", "memory"]
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


def in_turn(works: dict[str, Callable[[], None]], rounds: int, steps: int) -> Iterator[Row]:
    """CPU ms of one of the ``steps`` of each, the least, and the ratio to the first: median of pairs, p10, p90.

    In each round every way is measured right beside the first one, in an order that is reversed from round to round;
    a round that is not measured comes first.
    """

    def milliseconds(what: str) -> float:
        started = process_time()
        works[what]()
        return 1e3 * (process_time() - started) / steps

    first, *others = works
    taken = {what: [] for what in others}
    for number in range(rounds + 1):
        for what in others:
            pair = (first, what) if number % 2 else (what, first)
            times = {each: milliseconds(each) for each in pair}
            taken[what].append((times[what] / times[first], times[what], times[first]))
    yield {"what": first, "than": first, "ratio": 1.0, "ms": min(pair[2] for times in taken.values() for pair in times)}
    for what, pairs in taken.items():
        ratios = sorted(ratio for ratio, _, _ in pairs[1:])
        p10, *_, p90 = quantiles(ratios, n=10, method="inclusive")
        least = min(own for _, own, _ in pairs[1:])
        yield {"what": what, "than": first, "ratio": median(ratios), "p10": p10, "p90": p90, "ms": least}


def loop_rows(models: list[str], rounds: int) -> Iterator[Row]:
    """The loop against a bare one, with PyTorch's SGD as it comes and with the optimizer that the loop uses."""
    for model in models:
        runs = [prepared(model, 64) for _ in range(4)]
        ways = {}
        for what, (run, _) in zip(("a bare loop", "a bare loop again"), runs[:2], strict=True):
            decay = run.config.weight_decay
            sgd = torch.optim.SGD(run.model.parameters(), 0.1, run.config.momentum, weight_decay=decay, nesterov=True)
            ways[what] = partial(bare, run, sgd)
        ways["a bare loop, our optimizer"] = partial(bare, runs[2][0], runs[2][0].optimizer)
        ways["our loop"] = partial(ours, *runs[3])
        yield from ({"model": model} | row for row in in_turn(ways, rounds, MODELS[model][1]))


def method_rows(model: str, batch: int, rounds: int) -> Iterator[Row]:
    """A step with each method against a plain one, all in our loop; events come at the methods' own periods."""
    runs = {"plain": prepared(model, batch), "plain again": prepared(model, batch)}
    runs |= {what: prepared(model, batch, hooks=hooks) for what, hooks in METHODS.items()}
    rows = in_turn({what: partial(ours, *run) for what, run in runs.items()}, rounds, MODELS[model][1])
    yield from ({"model": model} | row for row in rows)


def peak(model: str, hooks: dict[str, Any] | None, answer: Any) -> None:
    """Train two epochs and answer with the most memory that this process has had, in MB; no ``hooks``: a bare loop."""
    torch.set_num_threads(1)
    run, meter = prepared(model, 128, hooks=hooks or {})
    for _ in range(2):
        bare(run, run.optimizer) if hooks is None else ours(run, meter)
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def memory_rows(model: str) -> Iterator[Row]:
    """The peak of a process that trains with our loop, and with each method, as a ratio to that of a bare loop."""
    processes, first = multiprocessing.get_context("spawn"), None
    for what, hooks in {"a bare loop": None, "our loop": {}, **METHODS}.items():
        here, there = processes.Pipe()
        child = processes.Process(target=peak, args=(model, hooks, there))
        child.start()
        megabytes = here.recv()
        child.join()
        first = first or megabytes
        yield {"model": model, "what": what, "than": "a bare loop", "ratio": megabytes / first, "MB": megabytes}


def show(rows: Iterator[Row]) -> None:
    for row in rows:
        numbers = " ".join(f"{name} {row[name]:8.3f}" for name in ("ratio", "p10", "p90", "ms", "MB") if name in row)
        print(f"{row['model']:10s} {row['what']:28s} {numbers}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "loop" in options.only:
        print("the loop, batch 64; ms a step; ratio of CPU time to a bare loop's")
        show(loop_rows(options.models, options.rounds))
    if "methods" in options.only:
        print("methods, batch 100; ms a step; ratio of CPU time to a plain step's")
        show(method_rows("mnist_mlp", 100, options.rounds))
    if "memory" in options.only:
        print("peak memory of a process, batch 128; ratio to a bare loop's")
        for model in options.models:
            show(memory_rows(model))
