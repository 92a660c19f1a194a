"""What a data set promises; every function is one promise of the data set ``name``, whose files are here."""

from __future__ import annotations

import torch

from research.contracts.bench import Make, NotAsked, trained
from research.data.choice import make_loader
from research.data.datasets import data_root, describe


def gives_what_it_says(name: str, make: Make) -> None:
    """Both splits have images of its shape and labels of its classes, each class in both."""
    dataset = describe(name)
    for split in ("train", "val"):
        loader = make_loader(make(dataset=name, batch_size=16, name="read"), split)
        images, labels = map(torch.cat, zip(*loader, strict=True))
        loader.close()
        assert images.shape[1:] == dataset.shape, f"{split}: images {tuple(images.shape[1:])}, not {dataset.shape}"
        missing = set(range(loader.info.classes)) - set(labels.tolist())
        assert not missing, f"{split}: no image of class {min(missing)}"


def reads_the_same_twice(name: str, make: Make) -> None:
    """Every process and every session gets the same samples."""
    dataset = describe(name)
    if not dataset.read:
        raise NotAsked("has no reader of its own")
    for split in ("train", "val"):
        one, other = (dataset.read(data_root(), split) for _ in range(2))
        for mine, its in zip(one, other, strict=True):
            assert (mine == its).all(), f"{split}: differs when it is read again"


def trains(name: str, make: Make) -> None:
    """Two epochs of an MLP end."""
    assert trained(make(dataset=name, model="mnist_mlp", batch_size=8, name="trains")).status["status"] == "finished"


PROMISES = (gives_what_it_says, reads_the_same_twice, trains)
