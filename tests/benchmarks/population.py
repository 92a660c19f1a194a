"""What a network costs that trains in a stack of 8 or 32, against one that trains alone, and from a DataLoader.

    python tests/benchmarks/population.py

MLPs 8 wide, 8 deep, tc 10, batches of 64 in the shape of MNIST, one thread. ``fit`` is this project's own loop on one
network, with its data in memory; ``DataLoader`` is the plain loop around torch's loader with torchvision's image and
ToTensor for every sample, as the published program has it. The networks of a stack see one order of the data or each
its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from pairs import Row, Ways, main
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from research.config import Config
from research.data import loader as batches
from research.data.arrays import read
from research.runs.run import Run
from research.training.loop import train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare
from research.training.stacked import StackedTraining

STEPS = 100  # of a measurement: an epoch


@cache
def mnist(steps: int) -> tempfile.TemporaryDirectory:
    """A folder with noise in the shape of MNIST, ``steps`` batches, and an order of it that is drawn once."""
    folder, random = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    shapes = {"train": (steps * 64, 28, 28), "test": (64, 28, 28)}
    images = {f"{split}_images": random.integers(0, 256, shape, np.uint8) for split, shape in shapes.items()}
    labels = {f"{split}_labels": random.integers(0, 10, shape[0], np.uint8) for split, shape in shapes.items()}
    np.savez(Path(folder.name) / "mnist.npz", **images, **labels)
    batches.permutation = cache(batches.permutation)  # MNIST's own epoch is ten times as long
    return folder


def prepared(steps: int, runs: str, seed: int = 0, order_seed: int | None = 0) -> Run:
    base = {"dataset": "mnist", "data_root": mnist(steps).name, "data_args": {"normalize": False}, "batch_size": 64}
    base |= {"model": "dense_mlp", "model_args": {"width": 8, "depth": 8, "tc": 10}, "optimizer": "adamw", "lr": 0.001}
    base |= {"weight_decay": 0, "schedule": "constant", "device": "cpu", "threads": 1, "seed": seed}
    run = Run.create(Config.load(base, {"order_seed": order_seed, "runs": runs, "name": f"{seed}-{order_seed}"}))
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


def alone(steps: int) -> Callable[[], None]:
    run = prepared(steps, tempfile.mkdtemp())
    meter = Meter(run)

    def train() -> None:
        run.batch = 0
        run.train_loader.set_epoch(run.epoch)
        train_epoch(run, meter)
        meter.new_epoch()

    return train


def from_data_loader(steps: int) -> Callable[[], None]:
    run = prepared(steps, tempfile.mkdtemp())
    loader = DataLoader(Samples(mnist(steps).name), batch_size=64, shuffle=True, drop_last=True)

    def train() -> None:
        for inputs, targets in loader:
            F.cross_entropy(run.model(inputs), targets).backward()
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)

    return train


def stacked(steps: int, count: int, order_seed: int | None) -> Callable[[], None]:
    folder = tempfile.mkdtemp()
    runs = [prepared(steps, folder, seed, order_seed) for seed in range(count)]
    stack, bar = StackedTraining(runs, {run: Meter(run) for run in runs}), tqdm(disable=True)

    def train() -> None:
        for run in runs:
            run.batch = 0
        stack.train_epoch(bar)

    return train


def against(rival: Callable[[int], Callable[[], None]], count: int, order_seed: int | None, small: bool) -> Ways:
    steps = 2 if small else STEPS
    return Ways(stacked(steps, count, order_seed), rival(steps), more=count)


ROWS = [
    Row(f"a network of {count}, {order} order", "fit", aim, partial(against, alone, count, seed))
    for order, seed in (("its own", None), ("one", 0))
    for count, aim in ((8, ">= 8"), (32, ">= 12"))
]
ROWS.append(
    Row("a network of 32, one order", "a loop around a DataLoader", ">= 12", partial(against, from_data_loader, 32, 0))
)

if __name__ == "__main__":
    main(ROWS, __doc__)
