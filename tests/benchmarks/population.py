"""What a network costs when it trains alone, from a DataLoader, and in stacks of 1 to 128: CPU time on one thread.

python tests/benchmarks/population.py --root FOLDER [--depth 8] [--width 8] [--tc 10] [--steps 100] [--rounds 5]

FOLDER holds MNIST. Steps are timed in rounds, all ways in turn, so that neighbours on the machine hurt them alike: the
table has the fastest round of each, and the median over rounds of the ratios. ``fit`` is this project's own loop on one
network, with its data in memory; ``DataLoader`` is the plain loop around torch's loader with torchvision's image and
ToTensor for every sample, as the published program has it. The time of an epoch is that of all a run is: preparation,
evaluation, rows of metrics, best weights and checkpoint too.
"""

import argparse
import io
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from statistics import median
from time import process_time

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from research.config import Config
from research.data import loader as batches
from research.data.arrays import read
from research.runs.run import Run
from research.studies.population import fit_population
from research.training.loop import fit, train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare
from research.training.stacked import StackedTraining

STACKS = (1, 8, 32, 128)


def config(options: argparse.Namespace, folder: str, seed: int = 0, order_seed: int | None = 0, **given) -> Config:
    shape = {"width": options.width, "depth": options.depth, "tc": options.tc}
    base = {"dataset": "mnist", "data_root": options.root, "data_args": {"normalize": False}, "model": "dense_mlp"}
    base |= {"model_args": shape, "optimizer": "adamw", "weight_decay": 0, "lr": 0.001, "schedule": "constant"}
    base |= {"batch_size": 64, "epochs": 1, "device": "cpu", "threads": 1, "seed": seed, "order_seed": order_seed}
    return Config.load(base, {"runs": folder, "name": f"{seed}-{order_seed}"}, given)


def prepared(made: Config) -> Run:
    run = Run.create(made)
    prepare(run)
    return run


class Samples(Dataset):
    """MNIST, one image at a time."""

    def __init__(self, root: str):
        self.images, self.labels = read("mnist", root, "train")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return to_tensor(Image.fromarray(self.images[index, ..., 0])), int(self.labels[index])


class Ways:
    """Ways to train ``steps`` steps of a number of networks, each a function without arguments."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.steps = options, options.steps
        self.ways = {("fit", 1): self.alone(), ("DataLoader", 1): self.from_data_loader()}
        for count in STACKS:
            self.ways["stack, shared order", count] = self.stacked(count, order_seed=0)
        for count in STACKS[1:]:
            self.ways["stack, own order", count] = self.stacked(count, order_seed=None)

    def alone(self):
        run = prepared(config(self.options, tempfile.mkdtemp()))
        meter = Meter(run)
        run.steps_per_epoch = self.steps

        def train() -> None:
            run.batch = 0
            run.train_loader.set_epoch(run.epoch, start=len(run.train_loader) - self.steps)
            train_epoch(run, meter)
            meter.new_epoch()

        return train

    def from_data_loader(self):
        run = prepared(config(self.options, tempfile.mkdtemp()))
        epoch = iter(())
        loader = DataLoader(Samples(self.options.root), batch_size=64, shuffle=True, drop_last=True)

        def train() -> None:
            nonlocal epoch
            for _ in range(self.steps):
                batch = next(epoch, None)
                if batch is None:
                    epoch = iter(loader)
                    batch = next(epoch)
                F.cross_entropy(run.model(batch[0]), batch[1]).backward()
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)

        return train

    def stacked(self, count: int, order_seed: int | None):
        folder = tempfile.mkdtemp()
        runs = [prepared(config(self.options, folder, seed, order_seed)) for seed in range(count)]
        stack, bar = StackedTraining(runs, {run: Meter(run) for run in runs}), tqdm(disable=True)

        def train() -> None:
            for run in runs:
                run.batch, run.steps_per_epoch = len(run.train_loader) - self.steps, len(run.train_loader)
            stack.train_epoch(bar)

        return train


def seconds(function) -> float:
    started = process_time()
    function()
    return process_time() - started


def epochs(options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of an epoch of one network with all that belongs to it, preparation included."""
    found = {"fit": seconds(lambda: fit(Run.create(config(options, tempfile.mkdtemp()))))}
    for order, order_seed in (("shared", 0), ("own", None)):
        for count in STACKS[order == "own" :]:
            folder = tempfile.mkdtemp()
            population = [config(options, folder, seed, order_seed) for seed in range(count)]
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):  # bars
                spent = seconds(lambda population=population: fit_population(population))
            found[f"stack of {count}, {order} order"] = spent / count
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, type=lambda text: str(Path(text)))
    for name, value in {"depth": 8, "width": 8, "tc": 10, "steps": 100, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches.permutation = cache(batches.permutation)  # drawn once an epoch, which is longer than a round
    ways = Ways(options).ways
    for way in ways.values():
        way()
    rounds = [{key: seconds(way) / options.steps / key[1] for key, way in ways.items()} for _ in range(options.rounds)]
    print(f"MNIST, width {options.width}, depth {options.depth}, tc {options.tc}, batch 64; CPU time, one thread")
    print(f"{'':22s} {'networks':>8s} {'ms a step of one':>17s} {'than fit':>9s} {'than DataLoader':>16s}")
    for key in ways:
        best = min(times[key] for times in rounds)
        faster = [median(times[other, 1] / times[key] for times in rounds) for other in ("fit", "DataLoader")]
        print(f"{key[0]:22s} {key[1]:8d} {1000 * best:17.3f} {faster[0]:8.1f}x {faster[1]:15.1f}x")
    print(f"\n{'epoch of one network':30s} {'s':>7s}")
    for name, each in epochs(options).items():
        print(f"{name:30s} {each:7.3f}", flush=True)
