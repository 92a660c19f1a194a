"""Which process takes which samples, on many processes: pure arithmetic, no process is started."""

from collections.abc import Iterator

import numpy as np
import pytest

from research.data.draws import permutation
from research.data.loader import DataInfo, Loader, Share

BATCH = 128


class Rows(Loader):
    """A loader whose batches are the numbers of their samples."""

    def batches(self, first: int, last: int) -> Iterator[np.ndarray]:
        rows = self.rows(first, last)
        for at in range(0, len(rows), self.batch):
            yield rows[at : at + self.batch]


def loaders(split: str, world: int, train: int = 1437, val: int = 360, seed: int = 0) -> list[Rows]:
    info = DataInfo("digits", 10, (1, 8, 8), (0.0,), (1.0,), train, val)
    return [Rows(info, Share(split, rank, world, BATCH, seed)) for rank in range(world)]


@pytest.mark.parametrize("world", [1, 8, 64])
@pytest.mark.parametrize("samples", [1, 7, 63, 64, 65, 360, 10_000])
def test_every_sample_is_evaluated_once_on_some_process(samples, world):
    parts = [list(loader) for loader in loaders("val", world, val=samples)]
    assert sorted(int(row) for part in parts for batch in part for row in batch) == list(range(samples))
    counts = [sum(map(len, part)) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert [len(part) for part in parts] == [len(loader) for loader in loaders("val", world, val=samples)]


@pytest.mark.parametrize("world", [8, 64])
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_step_takes_the_same_images_on_any_number_of_processes(epoch, world):
    (alone,), parts = loaders("train", 1), loaders("train", world)
    for loader in (alone, *parts):
        loader.set_epoch(epoch)
    steps = list(zip(*parts, strict=True))
    assert len(steps) == len(alone) == 1437 // BATCH
    for whole, shares in zip(alone, steps, strict=True):
        assert [len(share) for share in shares] == [BATCH // world] * world
        assert np.array_equal(np.concatenate(shares), whole)


@pytest.mark.parametrize("world", [8, 64])
def test_the_steps_of_an_epoch_are_disjoint_and_leave_out_less_than_a_batch(world):
    taken = np.concatenate([np.concatenate(list(loader)) for loader in loaders("train", world)])
    assert len(np.unique(taken)) == len(taken) == 1437 // BATCH * BATCH
    assert set(range(1437)) - set(taken.tolist()) == set(permutation(1437, 0, 0)[len(taken) :].tolist())


@pytest.mark.parametrize("world", [8, 64])
def test_an_epoch_that_continues_takes_what_is_left_of_it(world):
    for loader, other in zip(loaders("train", world), loaders("train", world), strict=True):
        other.set_epoch(0, start=5)
        assert np.array_equal(np.concatenate(list(loader)[5:]), np.concatenate(list(other)))
