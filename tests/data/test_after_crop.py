"""RandAugment and random erasing: torchvision's, drawn from (seed, epoch, index), the same from every loader."""

import dataclasses

import numpy as np
import pytest
import torch
from gpu_cases import gpu
from pretend_cuda import CUDA
from test_data_loaders import KINDS, betons, everything, make  # noqa: F401 fixtures
from torchvision.transforms import v2

from research.config import Config
from research.data.after_crop import erase, rand_augment, rand_augment_operations
from research.data.augment import Augment
from research.data.choice import make_loader
from research.data.draws import DRAW, draw_training, more_bits
from research.errors import UsageError

BOTH = {"flip": True, "cutout": 2, "randaugment": 2, "randaugment_magnitude": 14, "erase": 0.5, "erase_mode": "pixel"}
CONFIG = Config(batch_size=96, seed=3, data_args=BOTH, loader="memory")


def drawn(augment: Augment, count: int, size: int, epoch: int = 0) -> np.ndarray:
    sides = np.full(count, size)
    return draw_training(augment, np.arange(count), sides, sides, 0, epoch, size)


def images(count: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    """Pictures with large areas and a full range of values, (count, C, S, S) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, channels, 6, 6), dtype=np.uint8)
    return v2.functional.resize(torch.from_numpy(coarse), [size, size], antialias=True)


@pytest.mark.parametrize("magnitude", range(0, 31, 3))
@pytest.mark.parametrize(("channels", "size"), [(3, 64), (1, 28)])
def test_every_operation_is_that_of_torchvision(magnitude, channels, size):
    theirs, x = v2.RandAugment(magnitude=magnitude), images(2, channels, size)
    space = theirs._AUGMENTATION_SPACE
    mine = rand_augment_operations(magnitude, size)
    assert len(mine) == len(space)
    for operation, (name, (levels, signed)) in zip(mine, space.items(), strict=True):
        table = levels(31, size, size)
        for sign in (1, -1):
            level = 0.0 if table is None else float(table[magnitude]) * (sign if signed else 1)
            expected = theirs._apply_image_or_video_transform(x, name, level, theirs.interpolation, theirs._fill)
            assert torch.equal(operation(x, sign), expected), name


def test_operations_and_signs_are_drawn_evenly_and_anew_for_each_place():
    bits = drawn(Augment(randaugment=2), 42_000, 8)["bits"]
    kinds = np.stack([more_bits(bits, number) % np.uint64(14) for number in (0, 1)]).astype(int)
    counts = np.bincount(kinds[0] * 14 + kinds[1], minlength=196)
    assert ((counts - 42_000 / 196) ** 2 / (42_000 / 196)).sum() < 261  # chi-square, 195 degrees of freedom, p = 0.001
    assert abs((more_bits(bits, 0) >> np.uint64(63)).mean() - 0.5) < 0.01
    assert not np.array_equal(bits, drawn(Augment(randaugment=2), 42_000, 8, epoch=1)["bits"])


def test_an_image_does_not_depend_on_its_company():
    x, bits = images(40, 3, 64), drawn(Augment(randaugment=3), 40, 64)["bits"]
    operations, together = rand_augment_operations(9, 64), x.clone()
    rand_augment(together, bits, 3, operations)
    for i in range(len(x)):
        alone = x[[i]].clone()
        rand_augment(alone, bits[[i]], 3, operations)
        assert torch.equal(alone[0], together[i])
    assert (together != x).flatten(1).any(1).sum() > 30


def test_boxes_have_the_sizes_of_torchvision_and_lie_inside():
    draws = drawn(Augment(erase=0.25), 20_000, 100)
    draws = draws[draws["erased_rows"] > 0]
    assert abs(len(draws) / 20_000 - 0.25) < 0.01
    top, left, rows, columns = (draws[f"erased_{name}"].astype(int) for name in ("top", "left", "rows", "columns"))
    assert top.min() == left.min() == 0 and (top + rows).max() == (left + columns).max() == 100
    theirs = v2.RandomErasing()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [theirs.make_params([torch.empty(3, 100, 100)]) for _ in range(5000)]
    for mine, name in ((rows, "h"), (columns, "w"), (top, "i"), (left, "j")):
        expected = np.array([each[name] for each in params])
        assert abs(mine.mean() - expected.mean()) < 4 * expected.std() / 5000**0.5 + 4 * mine.std() / 5000**0.5
        assert abs(mine.std() / expected.std() - 1) < 0.06


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_a_box_is_filled_as_its_mode_says_and_nothing_else_changes(mode):
    draws = drawn(Augment(erase=1, erase_mode=mode), 8, 32)
    x = torch.full((8, 3, 32, 32), 7.0)
    erase(x, draws, mode)
    for image, (top, left, rows, columns) in zip(
        x, draws[[f"erased_{name}" for name in ("top", "left", "rows", "columns")]].tolist(), strict=True
    ):
        box = image[:, top : top + rows, left : left + columns].clone()
        image[:, top : top + rows, left : left + columns] = 7
        assert rows and (image == 7).all() and not (box == 7).any()
        assert box.unique().numel() == {"const": 1, "rand": 3, "pixel": box.numel()}[mode]
        assert mode != "const" or not box.any()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_from_every_loader_process_and_start(make, kind):  # noqa: F811
    loader = make_ffcv(make, kind)
    loader.set_epoch(1)
    whole = list(loader)
    expected = plain(1)
    assert torch.equal(torch.cat([x for x, _ in whole]), expected)
    loader.set_epoch(1, start=9)
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(whole[9:], loader, strict=True))
    if kind != "ffcv":
        halves = [make(kind, rank=rank, world=2, config=CONFIG) for rank in (0, 1)]
        for half in halves:
            half.set_epoch(1)
        for (x, _), *parts in zip(whole, *halves, strict=True):
            assert torch.equal(x, torch.cat([part for part, _ in parts]))


def make_ffcv(make, kind):  # noqa: F811
    """The loader of this file's config; an FFCV one is compiled for it."""
    if kind != "ffcv":
        return make(kind, config=CONFIG)
    root = make("ffcv").pipeline._args["fname"]
    return make_loader(dataclasses.replace(CONFIG, loader="ffcv", data_root=root.rpartition("/")[0]), "train")


def plain(epoch: int) -> torch.Tensor:
    """The training epoch by torchvision, image by image: mirrored, two operations, normalised, cut out, erased."""
    loader = make_loader(dataclasses.replace(CONFIG, data_args={}), "train")
    loader.set_epoch(epoch)
    order, info = loader.rows(0, len(loader)), loader.info
    raw = make_loader(dataclasses.replace(CONFIG, data_args={"normalize": False}), "train").in_order()
    stored = (everything(raw)[0] * 255).round().to(torch.uint8)
    draws = draw_training(Augment(**BOTH), order, np.full(len(order), 8), np.full(len(order), 8), 3, epoch, 8)
    operations, found = rand_augment_operations(14, 8), []
    scale, bias = np.float32(1 / (255 * info.std[0])), np.float32(-info.mean[0] / info.std[0])
    for index, draw in zip(order, draws, strict=True):
        image = stored[index].flip(-1) if draw["flip"] else stored[index]
        for number in (0, 1):
            drawn = int(more_bits(draws["bits"][order == index], number)[0])
            image = operations[drawn % 14](image[None], 1 if drawn >> 63 else -1)[0]
        image = image * scale + bias
        row, column = int(draw["cut_row"]), int(draw["cut_column"])
        image[:, max(0, row - 1) : row + 1, max(0, column - 1) : column + 1] = 0
        if draw["erased_rows"]:
            top, left, rows, columns = (int(draw[f"erased_{name}"]) for name in ("top", "left", "rows", "columns"))
            noise = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(int(draw["bits"])))
            image = v2.functional.erase(image, top, left, rows, columns, noise)
        found.append(image)
    return torch.stack(found)


def test_on_a_gpu_the_host_waits_for_nothing_and_the_pixels_are_those_of_the_cpu():
    expected = everything(make_loader(CONFIG, "train"))[0]
    with gpu() as on:
        loader = make_loader(CONFIG, "train", device=CUDA)
        on.taken()
        batches = list(loader)
        assert on.taken() == []
        assert torch.equal(torch.cat([x for x, _ in batches]).cpu(), expected)


def test_evaluation_changes_nothing_and_neutral_draws_are_the_old_ones():
    evaluated = [make_loader(dataclasses.replace(CONFIG, data_args=given), "val") for given in (BOTH, {})]
    assert torch.equal(*(everything(loader)[0] for loader in evaluated))
    old = {name for name in DRAW.names if name != "bits" and not name.startswith("erased")}
    plainly, much = drawn(Augment(flip=True, cutout=4), 300, 8), drawn(Augment(**BOTH | {"cutout": 4}), 300, 8)
    assert all(np.array_equal(plainly[name], much[name]) for name in old)
    assert not plainly["bits"].any() and not plainly["erased_rows"].any()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"erase": 2}, "data_args.erase=2: must be >= 0 and <= 1"),
        ({"randaugment": 2, "randaugment_magnitude": 31}, "data_args.randaugment_magnitude=31: must be >= 0 and <= 30"),
        ({"randaugment_magnitude": 5}, "data_args.randaugment_magnitude=5: has no effect: it belongs to randaugment"),
        ({"erase_mode": "pixel"}, "data_args.erase_mode='pixel': has no effect: nothing is erased, with erase=0"),
        ({"erase": 0.1, "erase_mode": "noise"}, "data_args.erase_mode='noise'"),
    ],
)
def test_what_cannot_act_is_refused(given, told):
    with pytest.raises(UsageError, match=told):
        Config.load({"data_args": given})
