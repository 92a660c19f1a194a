"""Loaders of small images against torch's DataLoader and FFCV: pad-4 crop, flip, normalised to float32, batches of 512.

    python tests/benchmarks/loaders.py

The images are noise in the files and shapes of CIFAR-10. A measurement is an epoch, the start of its threads included;
what is compiled once is not. The last rival is the floor: the bytes of every batch moved once, and nothing computed.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, Squeeze, ToTensor, ToTorchImage
from pairs import Row, Ways, main
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from research.config import Config
from research.data import arrays
from research.data.choice import make_loader
from research.data.datasets import CIFAR_MEAN, CIFAR_STD
from research.data.ffcv import beton

BATCH = 512


class Pictures(Dataset):
    """CIFAR-10 as people load it: an array and torchvision transforms per image."""

    def __init__(self, root: Path):
        images, self.labels = arrays.read("cifar10", root, "train")
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        crop, flip = v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()
        to_float = v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([crop, flip, to_float, v2.Normalize(CIFAR_MEAN, CIFAR_STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[i]), int(self.labels[i])


def write_noise(folder: Path, images: int) -> None:
    """``images`` a file, in the files of CIFAR-10."""
    random = np.random.default_rng(0)
    (folder / "cifar-10-batches-py").mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = random.integers(0, 10, images).tolist()
        batch = {"data": random.integers(0, 256, (images, 3072), np.uint8), "labels": labels}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, protocol=2))


@cache
def files(images: int) -> tempfile.TemporaryDirectory:
    """A folder with CIFAR's files and the same as .beton, there as long as this process."""
    folder = tempfile.TemporaryDirectory()
    write_noise(Path(folder.name), images)
    beton.write("cifar10", folder.name, folder.name)
    return folder


def data_loader(root: str, workers: int = 0) -> Iterable:
    return DataLoader(Pictures(Path(root)), BATCH, shuffle=True, num_workers=workers, drop_last=True)


@cache  # compiles for seconds
def ffcv(root: str) -> Iterable:
    """FFCV with its own transforms, as its documentation has them for CIFAR-10."""
    mean, std = (255 * np.array(each) for each in (CIFAR_MEAN, CIFAR_STD))
    image = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=4)]
    image += [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()]
    pipelines = {"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]}
    order = OrderOption.RANDOM
    return Loader(
        str(beton.path_of("cifar10", root, "train")), BATCH, 1, True, order, drop_last=True, pipelines=pipelines
    )


class Copies:
    """Shuffled uint8 images gathered and widened to float32."""

    def __init__(self, root: str):
        self.images, self.labels = map(torch.from_numpy, arrays.read("cifar10", root, "train"))

    def __iter__(self):
        for rows in torch.randperm(len(self.labels)).split(BATCH):
            yield self.images[rows].float(), self.labels[rows]


def epoch(loader: Iterable) -> None:
    deque(loader, maxlen=0)


def against(rival: Callable[[str], Iterable], loader: str, small: bool) -> Ways:
    root = files(512 if small else 1536).name
    config = Config(dataset="cifar10", data_root=root, batch_size=BATCH, loader=loader, workers=1)
    return Ways(partial(epoch, make_loader(config, "train")), partial(epoch, rival(root)))


ROWS = [
    Row("CIFAR-10, from memory", "DataLoader, torchvision v2", ">= 3", partial(against, data_loader, "memory")),
    Row("CIFAR-10, FFCV raw", "DataLoader, torchvision v2", ">= 3", partial(against, data_loader, "ffcv")),
    Row("CIFAR-10, from memory", "FFCV's own", ">= 1", partial(against, ffcv, "memory")),
    Row("CIFAR-10, FFCV raw", "FFCV's own", ">= 1", partial(against, ffcv, "ffcv")),
    Row("CIFAR-10, from memory", "a copy to float32 (floor)", ">= 0.5", partial(against, Copies, "memory")),
]

if __name__ == "__main__":
    main(ROWS, __doc__)
