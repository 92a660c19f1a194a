"""Images a CPU second of pictures of ImageNet's size, against PIL, torchvision's transforms and torch's DataLoader.

    OMP_NUM_THREADS=1 python tests/benchmarks/pictures.py [--images 256] [--rounds 7]

Pictures of 500 x 375 pixels are made and stored as JPEG files; all loaders deliver batches of 64 at 224 pixels,
float32, normalised, in one process and thread (FFCV in its own). Every round runs every loader once, in an order that
alternates; ratios to PIL are paired within a round, and the table gives their median with the least and the largest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from research.config import Config
from research.data.choice import make_loader
from research.data.datasets import describe
from research.data.ffcv import beton

HEIGHT, WIDTH, BATCH = 375, 500, 64
PIPELINES = {
    "resized crop, flip": ("train", {}, [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()]),
    "the same and jitter": (
        "train",
        {"jitter": 0.4},
        [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4)],
    ),
    "the same and cutout": ("train", {"cutout": 56}, [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()]),
    "resize, centre crop": ("val", {}, [v2.Resize(256), v2.CenterCrop(224)]),
}
ERASING = v2.RandomErasing(p=1, scale=(0.0625, 0.0625), ratio=(1, 1))  # a square of 56 pixels


def make_pictures(folder: Path, images: int) -> None:
    """``images`` JPEG files a split, of one class: smooth shapes with the grain that makes photographs hard to pack."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split / "only").mkdir(parents=True)
        for i in range(images):
            shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((WIDTH, HEIGHT))
            grain = random.normal(0, 14, (HEIGHT, WIDTH, 3))
            pixels = (np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / "only" / f"{i}.jpg", quality=90)


def contenders(folder: Path, split: str, arguments: dict, changes: list) -> dict[str, Callable[[], Iterator]]:
    """Name -> a fresh iterator over the split."""
    described = describe("imagefolder")
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(described.mean, described.std)]
    last += [ERASING] if "cutout" in arguments else []
    files = ImageFolder(str(folder / "pictures" / split), v2.Compose([*changes, *last]))
    shared = {"dataset": "imagefolder", "batch_size": BATCH, "workers": 1, "data_args": {"image_size": 224} | arguments}
    found = {"PIL, DataLoader": lambda: iter(DataLoader(files, BATCH, shuffle=split == "train"))}
    places = {"memory": "pictures", "FFCV raw": "raw", "FFCV jpg": "jpg"}
    for name, place in places.items():
        loader = "memory" if name == "memory" else "ffcv"
        config = Config(data_root=str(folder / place), loader=loader, **shared)
        found[name] = make_loader(config, split).__iter__
    return found


def images_a_second(batches: Iterator) -> float:
    """Images a second of CPU time, of all threads, over a whole pass."""
    started = time.process_time()
    seen = sum(len(inputs) for inputs, _ in batches)
    return seen / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "pictures", options.images)
        for mode in ("raw", "jpg"):
            beton.write("imagefolder", str(folder / "pictures"), str(folder / mode), mode=mode)
        print("| pictures | loader | images a CPU second | ratio to PIL |\n| --- | --- | ---: | ---: |")
        for pipeline, given in PIPELINES.items():
            compared = contenders(folder, *given)
            rounds = []
            for number in range(options.rounds + 1):
                order = list(compared) if number % 2 else list(reversed(compared))
                rounds.append({name: images_a_second(compared[name]()) for name in order})
            rounds = rounds[1:]  # the first one compiles
            for name in compared:
                ratios = [each[name] / each["PIL, DataLoader"] for each in rounds]
                speed = np.median([each[name] for each in rounds])
                spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(f"| {pipeline} | {name} | {speed:,.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
