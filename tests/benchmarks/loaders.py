"""Images a second of the loaders against torch's DataLoader, on CIFAR-10: pad-4 crop, flip, normalise, float32.

    python tests/benchmarks/loaders.py --root FOLDER [--rounds 3] [--batch 512]

Every round runs every loader once, one after another, so that all see the same load of the machine; the table gives the
median over rounds. Ratios are of CPU time (workers and threads included), paired within a round. The first line of each
loader (compiling, starting) is left out. "copy" is the floor: the bytes of each batch moved once, nothing computed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from research.config import Config
from research.data import arrays
from research.data.choice import make_loader
from research.data.datasets import CIFAR_MEAN, CIFAR_STD
from research.data.ffcv import beton


class Pictures(TorchDataset):
    """CIFAR-10 as people load it: an array and torchvision transforms per image."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = torch.from_numpy(images).permute(0, 3, 1, 2), labels
        crop, flip = v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()
        to_float = v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([crop, flip, to_float, v2.Normalize(CIFAR_MEAN, CIFAR_STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[i]), int(self.labels[i])


def copies(images: np.ndarray, labels: np.ndarray, batch: int) -> Iterator:
    """The floor: shuffled uint8 images gathered and widened to float32."""
    stored, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for rows in torch.randperm(len(labels)).split(batch):
        yield stored[rows].float(), targets[rows]


def measure(batches: Iterator, images: int) -> tuple[float, float]:
    """Images per second of wall clock and of CPU time, over about ``images`` images."""
    wall, cpu, seen = time.perf_counter(), _cpu(), 0
    for inputs, _ in batches:
        seen += len(inputs)
        if seen >= images:
            break
    if hasattr(batches, "close"):
        batches.close()
    elif hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()  # so that the workers' CPU time is counted
    return seen / (time.perf_counter() - wall), seen / max(_cpu() - cpu, 1e-9)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def contenders(root: str, folder: str, batch: int) -> dict[str, tuple[Callable[[], Iterator], int]]:
    """Name -> (a fresh iterator, images a round)."""
    images, labels = arrays.read("cifar10", root, "train")
    beton.write("cifar10", root, folder, splits=("train",))
    beton.write("cifar10", root, folder, splits=("val",))
    plain = Pictures(images, labels)
    memory = make_loader(Config(dataset="cifar10", data_root=root, batch_size=batch, loader="memory"), "train")
    found = {"DataLoader, 0 workers": (lambda: iter(DataLoader(plain, batch, shuffle=True)), 4_096)}
    found["DataLoader, 2 workers"] = (lambda: iter(DataLoader(plain, batch, shuffle=True, num_workers=2)), 8_192)
    found["memory"] = (lambda: iter(memory), 10**9)
    for threads in (1, 2):
        config = Config(dataset="cifar10", data_root=folder, batch_size=batch, loader="ffcv", workers=threads)
        stream = make_loader(config, "train")
        found[f"FFCV raw, {threads} thread{'s' * (threads > 1)}"] = (lambda s=stream: iter(s), 10**9)
    found["copy (floor)"] = (lambda: copies(images, labels, batch), 10**9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds CIFAR-10 in any accepted layout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        methods = contenders(given.root, str(Path(folder)), given.batch)
        for start, _ in methods.values():
            measure(start(), 1)  # compile and warm up
        rounds = [
            {name: measure(start(), count) for name, (start, count) in methods.items()} for _ in range(given.rounds)
        ]
    base = "DataLoader, 2 workers"
    print(f"{'loader':24} {'img/s':>10} {'img/CPU-s':>10} {'ratio, CPU':>10} {'ratio, wall':>11}")
    for name in methods:
        wall, cpu = (statistics.median(r[name][i] for r in rounds) for i in (0, 1))
        ratios = [statistics.median(r[name][i] / r[base][i] for r in rounds) for i in (1, 0)]
        print(f"{name:24} {wall:10,.0f} {cpu:10,.0f} {ratios[0]:10.1f} {ratios[1]:11.1f}")


if __name__ == "__main__":
    main()
