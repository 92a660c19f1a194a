"""Batches from memory: what is only looked up is what kernels render, and orders read at once are those one by one."""

import dataclasses

import numpy as np
import pytest
import torch

from research.config import Config
from research.data import memory_loader as memory
from research.data.augment import Augment
from research.data.choice import make_loader
from research.data.loader import DataInfo, Share
from research.data.memory_loader import Images, MemoryLoader, side_by_side

INFO = DataInfo("random", 3, (3, 6, 6), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), train=40, val=40)


def colours(size=6) -> Images:
    """40 of 60 random images of three channels, in another order than their pixels."""
    random = np.random.default_rng(0)
    images = Images.of_one_size(random.integers(0, 256, (60, size, size, 3), np.uint8), random.integers(0, 3, 60))
    return images.only(random.permutation(60)[:40])


def loader(augment=None, split="train", images=None, **given) -> MemoryLoader:
    return MemoryLoader(INFO, Share(split, 0, 1, 16, 5), images or colours(), augment or Augment(), **given)


@pytest.mark.parametrize("kernel", ["compiled", "torch"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_are_only_looked_up_are_bit_identical_to_rendered_ones(monkeypatch, split, kernel):
    looked_up = loader(split=split)
    monkeypatch.setattr(MemoryLoader, "_as_stored", lambda self: False)
    if kernel == "torch":
        monkeypatch.setattr(memory, "_kernel", lambda: None)
    rendered = loader(split=split)
    assert looked_up.as_stored and not rendered.as_stored
    for epoch in (0, 1):
        looked_up.set_epoch(epoch, start=1)
        rendered.set_epoch(epoch, start=1)
        for mine, theirs in zip(looked_up, rendered, strict=True):
            assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])
            assert mine[0].stride() == theirs[0].stride()


def test_only_images_that_nothing_is_done_to_are_looked_up():
    assert loader(Augment(eval_resize=6)).as_stored
    for done in ({"flip": True}, {"crop": "pad", "padding": 1}, {"cutout": 2}, {"jitter": 0.1}, {"crop": "resized"}):
        assert not loader(Augment(**done)).as_stored
        assert loader(Augment(**done), split="val").as_stored
    assert not loader(Augment(eval_resize=7)).as_stored
    assert not loader(images=colours(size=7)).as_stored
    mixed = colours()
    assert not loader(images=dataclasses.replace(mixed, offsets=mixed.offsets + 3)).as_stored


WAYS = {
    "looked up": {},
    "compiled": {"data_args": {"crop": "pad", "padding": 2, "flip": True, "jitter": 0.2, "cutout": 3}},
    "torch": {"data_args": {"crop": "resized", "flip": True}},
    "contiguous": {"channels_last": False},
    "vectors": {"dataset": "circle", "batch_size": 100},
}


@pytest.mark.parametrize("way", [*WAYS, "any other"])
def test_orders_side_by_side_are_the_orders_one_by_one(monkeypatch, way):
    if way == "torch":
        monkeypatch.setattr(memory, "_kernel", lambda: None)
    loaders = [make_loader(Config(seed=seed, **WAYS.get(way, {})), "train") for seed in (0, 3, 4)]
    for one in loaders:
        one.set_epoch(2, start=5)
    alone = [list(one) for one in loaders]
    if way == "any other":
        monkeypatch.setattr(memory, "InMemory", memory.VectorLoader)
    assert len(alone[0]) == len(loaders[0]) - 5
    for batches, (inputs, targets) in zip(zip(*alone, strict=True), side_by_side(loaders), strict=True):
        assert torch.equal(inputs, torch.cat([batch[0] for batch in batches]))
        assert torch.equal(targets, torch.cat([batch[1] for batch in batches]))
        assert not torch.equal(batches[0][0], batches[1][0])
