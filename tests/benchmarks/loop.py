"""What the training loop costs over a bare one: the same batches, network and optimizer, without anything around them.

python tests/benchmarks/loop.py [--models resnet20 ...] [--pairs 9]
"""

import argparse
import tempfile
from functools import partial
from time import process_time

import torch
from torch.nn import functional as F

from research.config import Config
from research.runs.run import Run
from research.training.loop import train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare
from research.training.schedule import learning_rate


def prepared(model: str, hooks: dict) -> Run:
    config = Config.load(
        {"model": model, "hooks": hooks, "device": "cpu", "batch_size": 64, "runs": tempfile.mkdtemp(), "epochs": 1000}
    )
    run = Run.create(config)
    prepare(run)
    return run


def bare(run: Run) -> None:
    run.model.train()
    run.train_loader.set_epoch(run.epoch)
    for inputs, targets in run.train_loader:
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(run.config, run.step, run.steps_per_epoch)
        F.cross_entropy(run.model(inputs), targets).backward()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.step += 1
    run.epoch += 1


def ours(run: Run, meter: Meter) -> None:
    run.batch = 0
    run.train_loader.set_epoch(run.epoch)
    train_epoch(run, meter)
    meter.new_epoch()
    run.epoch += 1


def ratios(a, b, pairs: int) -> list[float]:
    """CPU time of b over that of a, one epoch each, taken in turn so that neighbours hurt both alike."""

    def clock(f) -> float:
        started = process_time()
        f()
        return process_time() - started

    a(), b()
    found = []
    for pair in range(pairs):
        first, second = (a, b) if pair % 2 else (b, a)
        one, two = clock(first), clock(second)
        found.append(two / one if pair % 2 else one / two)
    return sorted(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mnist_mlp", "resnet8", "resnet20"])
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("digits, batch 64, 22 steps an epoch, 1 thread, CPU time of one epoch; ratio to the bare loop")
    print(f"{'model':12s} {'compared':22s} {'median':>7s} {'p10':>7s} {'p90':>7s}")
    for model in options.models:
        plain, other = prepared(model, {}), prepared(model, {})
        meter = Meter(other)
        compared = {
            "bare / bare (noise)": partial(bare, plain),
            "our loop / bare": partial(ours, other, meter),
        }
        for name, run_epoch in compared.items():
            found = ratios(partial(bare, plain), run_epoch, options.pairs)
            low, middle, high = (found[int(q * (len(found) - 1))] for q in (0.1, 0.5, 0.9))
            print(f"{model:12s} {name:22s} {middle:7.3f} {low:7.3f} {high:7.3f}", flush=True)
