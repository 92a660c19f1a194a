"""The loader contract, over every way to load: same pixels, same order, nothing twice, nothing lost."""

import dataclasses
import importlib.util
import threading

import numpy as np
import pytest
import torch
from gpu_cases import gpu
from PIL import Image
from pretend_cuda import CUDA, OnGpu

from research.config import Config
from research.data import choice as loaders
from research.data import memory_loader as memory
from research.data.augment import Augment
from research.data.choice import check, make_loader
from research.data.draws import draw_training, permutation
from research.data.ffcv import beton
from research.errors import UsageError
from research.resources import decide

AUGMENT = {"crop": "pad", "padding": 2, "flip": True, "cutout": 4}
CONFIG = Config(batch_size=96, seed=3, data_args=AUGMENT, loader="memory")
KINDS = ["memory", "threads", "torch", "ffcv"]


@pytest.fixture(scope="session")
def betons(tmp_path_factory):
    """The digits as FFCV files."""
    folder = tmp_path_factory.mktemp("betons")
    beton.write("digits", out=folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 3 classes of 8 pictures of different sizes, and its FFCV files."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(24):
        (folder / "abc"[i % 3]).mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (20 + 3 * i, 60 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "abc"[i % 3] / f"{i:02}.png")
    beton.write("imagefolder", folder, out=folder)
    return folder


@pytest.fixture(scope="session")
def make(betons):
    """``make(kind, split, rank, world)``: a loader of the digits; FFCV's are kept: each compiles for seconds."""
    kept = {}

    def build(kind, split="train", rank=0, world=1, config=CONFIG):
        if kind == "ffcv":
            config = dataclasses.replace(config, loader="ffcv", data_root=str(betons))
            if (split, rank, world) not in kept:
                kept[split, rank, world] = make_loader(config, split, rank, world)
            kept[split, rank, world].set_epoch(0)
            return kept[split, rank, world]
        if kind == "torch":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(memory, "_kernel", lambda: None)  # as where numba is missing
                return make_loader(config, split, rank, world)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "SMALLEST_PART", 1)
            return make_loader(dataclasses.replace(config, workers=2 if kind == "threads" else 1), split, rank, world)

    return build


def everything(loader):
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def plain(epoch, config=CONFIG):
    """The training epoch computed image by image from the contract: (inputs, targets)."""
    images = loaders._images("digits", "", "train", False)
    size, steps = 8, len(images.labels) // config.batch_size
    order = permutation(len(images.labels), config.seed, epoch)[: steps * config.batch_size]
    sides = np.full(len(order), size)
    augment = Augment(**config.data_args)
    mode = "reflect" if augment.pad_mode == "reflect" else "constant"
    draws = draw_training(augment, order, sides, sides, config.seed, epoch, size)
    info, inputs = check(config), []
    for index, draw in zip(order, draws, strict=True):
        image = np.pad(images.pixels.reshape(-1, size, size)[index], augment.padding, mode)
        top, left = int(draw["top"]) + augment.padding, int(draw["left"]) + augment.padding
        image = image[top : top + size, left : left + size].astype(np.float32)
        image = image[:, ::-1].copy() if draw["flip"] else image
        image = image * np.float32(1 / (255 * info.std[0])) + np.float32(-info.mean[0] / info.std[0])
        row, column = draw["cut_row"], draw["cut_column"]
        image[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = 0
        inputs.append(image[None])
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(images.labels[order])


@pytest.mark.parametrize("kind", KINDS)
def test_training_batches_equal_the_plain_reference(make, kind):
    loader = make(kind)
    for epoch in (0, 2):
        loader.set_epoch(epoch)
        inputs, targets = everything(loader)
        expected = plain(epoch)
        assert torch.equal(inputs, expected[0]) and torch.equal(targets, expected[1])
        assert inputs.dtype == torch.float32 and targets.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
def test_reflected_padding_equals_the_plain_reference(make, monkeypatch, kind):
    config = dataclasses.replace(CONFIG, data_args=AUGMENT | {"padding": 7, "pad_mode": "reflect"})
    loader = make(kind, config=config)
    if kind == "ffcv":  # one that is compiled already: all that differs is drawn
        monkeypatch.setattr(loader, "augment", Augment(**config.data_args))
    found, expected = everything(loader), plain(0, config)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


RESIZED = {"crop": "resized", "flip": True, "cutout": 4, "jitter": 0.2}


@pytest.mark.parametrize(
    ("given", "travel_as"), [(AUGMENT, torch.uint8), pytest.param(RESIZED, torch.float32, marks=pytest.mark.slow)]
)
def test_ffcv_batches_reach_a_gpu_without_a_wait_and_with_the_pixels_of_the_cpu(betons, given, travel_as, monkeypatch):
    from research.data.ffcv import loader as ffcv

    came_as, finished = [], ffcv.finished
    monkeypatch.setattr(ffcv, "finished", lambda x, *how: (came_as.append(x.dtype), finished(x, *how))[1])
    config = dataclasses.replace(CONFIG, data_args=given)
    expected = everything(make_loader(config, "train"))
    with gpu() as on:
        loader = make_loader(dataclasses.replace(config, loader="ffcv", data_root=str(betons)), "train", device=CUDA)
        on.taken()
        batches = list(loader)
        assert on.taken() == [] and set(came_as) == {travel_as}
        assert all(isinstance(tensor, OnGpu) for batch in batches for tensor in batch)
        found = [torch.cat(tensors).cpu() for tensors in zip(*batches, strict=True)]
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])

        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # a defect: nothing is pinned
        next(iter(loader))
        assert {kind for kind, where in on.taken() if "ffcv/operations" in where} == {"blocking copy from host"}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_share_each_step_of_one(make, kind):
    whole, parts = everything(make(kind)), [make(kind, rank=r, world=2) for r in (0, 1)]
    steps = zip(*parts, strict=True)
    joined = [torch.cat([x for (x, _) in step]) for step in steps]
    assert len(joined) == len(parts[0]) == 1438 // 96
    assert torch.equal(torch.cat(joined), whole[0])


@pytest.mark.parametrize("kind, world", [*((kind, 1) for kind in KINDS), ("memory", 2), ("torch", 2)])
def test_evaluation_covers_every_sample_once_in_stored_order(make, kind, world):
    inputs = torch.empty(359, 1, 8, 8)
    for rank in range(world):
        loader = make(kind, "val", rank, world)
        inputs[rank::world] = everything(loader)[0]
        assert len(list(loader)) == len(loader)
    images = loaders._images("digits", "", "val", False)
    info = check(CONFIG)
    raw = torch.from_numpy(images.pixels.reshape(-1, 1, 8, 8)).float()
    assert torch.allclose(inputs, (raw / 255 - info.mean[0]) / info.std[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_resumed_at_a_batch_equals_the_rest_of_it(make, kind):
    loader = make(kind)
    loader.set_epoch(1)
    whole = list(loader)
    loader.set_epoch(1, start=9)
    rest = list(loader)
    assert len(rest) == len(loader) - 9
    for (x, y), (p, q) in zip(whole[9:], rest, strict=True):
        assert torch.equal(x, p) and torch.equal(y, q)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_at_the_first_batches_disturbs_nothing(make, kind):
    loader = make(kind)
    loader.set_epoch(1)
    expected, seen = list(loader), []
    for i, batch in enumerate(loader):
        seen.append(batch)
        if i == 3:
            assert all(torch.equal(x, e[0]) for (x, _), e in zip(loader.head(2), expected, strict=False))
    assert len(seen) == len(expected)
    assert all(torch.equal(x, e) for (x, _), (e, _) in zip(seen, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_training_split_in_order_has_every_sample_once_as_the_epoch_sees_it(make, kind):
    loader = make(kind)
    loader.set_epoch(1, start=3)
    ordered = loader.in_order()
    inputs, targets = everything(ordered)
    assert np.array_equal(ordered.rows(0, len(ordered)), np.arange(1438)) and len(inputs) == 1438
    seen, labels = everything(loader)  # where it was left
    rows = loader.rows(3, len(loader))
    assert torch.equal(inputs[rows], seen) and torch.equal(targets[rows], labels)
    halves = [make_loader(CONFIG, "train", rank, 2).in_order() for rank in (0, 1)]
    assert sorted(np.concatenate([half.rows(0, len(half)) for half in halves])) == list(range(1438))


@pytest.mark.parametrize("data_args", [{}, {"image_size": 12, "eval_resize": 14}])
def test_without_augmentation_training_images_in_order_are_those_of_evaluation(monkeypatch, data_args):
    config, read = dataclasses.replace(CONFIG, data_args=data_args), loaders._images
    samples = check(config).train
    ordered = make_loader(config, "train").in_order()
    monkeypatch.setattr(loaders, "_images", lambda name, root, split, download: read(name, root, "train", download))
    monkeypatch.setattr(loaders.arrays, "count", lambda *_: samples)
    for mine, evaluated in zip(everything(ordered), everything(make_loader(config, "val")), strict=True):
        assert torch.equal(mine, evaluated)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_batches_are_never_overwritten(make, kind):
    loader = make(kind)
    kept = [(x, x.clone()) for x, _ in loader]
    assert all(torch.equal(x, copy) for x, copy in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_aligned_as_memory_of_torch_is(make, kind):
    assert not any(x.data_ptr() % 64 for x, _ in make(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_an_epoch_early_leaves_no_thread_behind(make, kind):
    loader = make(kind)
    next(iter(loader))
    before = threading.active_count()
    for _ in range(9):
        next(iter(loader))
    assert threading.active_count() <= before + 2  # a pool of two starts its second thread when it is first needed
    loader.close()


@pytest.mark.parametrize(
    "how", [{"crop": "resized"}, {"crop": "resized", "jitter": 0.4, "cutout": 6}, {"crop": "none"}]
)
def test_pictures_of_any_size_are_the_same_from_memory_and_torch(pictures, monkeypatch, how):
    given = {"image_size": 16, "eval_resize": 18, **how}
    config = Config(dataset="imagefolder", data_root=str(pictures), data_args=given, batch_size=5, loader="memory")
    compiled = [everything(make_loader(config, split)) for split in ("train", "val")]
    monkeypatch.setattr(memory, "_kernel", lambda: None)
    for split, (inputs, targets) in zip(("train", "val"), compiled, strict=True):
        found = everything(make_loader(config, split))
        assert torch.allclose(found[0], inputs, atol=1e-4) and torch.equal(found[1], targets)


def test_pictures_of_any_size_are_bit_identical_from_memory_and_ffcv(pictures):
    given = {"image_size": 16, "jitter": 0.4}
    config = Config(dataset="imagefolder", data_root=str(pictures), data_args=given, batch_size=5, loader="memory")
    stream = make_loader(dataclasses.replace(config, loader="ffcv"), "train")
    for loader in (stream, make_loader(config, "train")):
        loader.set_epoch(4)
        found = everything(loader)
        if loader is stream:
            expected = found
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_vectors_are_delivered_unchanged():
    config = Config(dataset="circle", data_args={"num_seg": 6}, batch_size=100)
    inputs, targets = everything(make_loader(config, "val"))
    assert inputs.shape == (1200, 2) and targets.bincount().tolist() == [600, 600]
    assert inputs.norm(dim=1).max() > 99


def test_memory_format_follows_the_config(pictures):
    given = {"dataset": "imagefolder", "data_root": str(pictures), "data_args": {"image_size": 16}, "batch_size": 4}
    for last, kept in ((True, torch.channels_last), (False, torch.contiguous_format)):
        inputs, _ = next(iter(make_loader(Config(**given, channels_last=last), "val")))
        assert inputs.is_contiguous(memory_format=kept)


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"batch_size": 1439}, "batch_size=1439: digits has only 1,438 training samples; use batch_size<=1438"),
        ({"dataset": "digitz"}, "unknown dataset 'digitz'; did you mean 'digits'"),
        ({"dataset": "linear", "loader": "ffcv"}, "vectors; use loader=memory"),
        ({"data_args": {"flop": 1}}, "did you mean 'data_args.flip'"),
        (
            {"data_args": {"crop": "pad", "padding": 8, "pad_mode": "reflect"}},
            "padding=8: an image of 8 pixels reflects at most 7; use pad_mode=zero",
        ),
        ({"data_args": {"padding": 2, "pad_mode": "reflect"}}, "pad_mode='reflect': needs crop=pad, not crop=none"),
        ({"data_args": {"crop": "pad", "pad_mode": "mirror"}}, "pad_mode='mirror'"),
        ({"data_args": {"holdout": 1438}}, "data_args.holdout=1438: must be below the 1,438 training images"),
        ({"data_args": {"holdout": 9}, "loader": "ffcv"}, "FFCV files are read whole; use loader=memory"),
        ({"loader": "ffcv", "data_root": "."}, "run `research data write digits --root .` once"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run(given, problem):
    with pytest.raises(UsageError) as error:
        check(dataclasses.replace(Config(), **given))
    assert problem in str(error.value)


def test_without_ffcv_one_sentence_says_what_to_do_and_memory_still_works(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("ffcv", "numba") else find(name))
    with pytest.raises(UsageError, match="ffcv and numba is not installed; `pip install ffcv`.*or set loader=memory"):
        check(dataclasses.replace(CONFIG, loader="ffcv"))
    assert check(CONFIG).train == 1438


def test_auto_names_the_command_when_pictures_exceed_memory(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(loaders, "free_memory", lambda: 1000)
    config = Config(dataset="imagefolder", data_root=str(pictures), batch_size=4)
    assert check(config).loader == "ffcv"
    for path in pictures.glob("[abc]"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(UsageError, match=f"run `research data write imagefolder --root {tmp_path}`"):
        check(dataclasses.replace(config, data_root=str(tmp_path)))


def test_unreadable_pictures_are_all_named(tmp_path):
    for i in range(10):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    order = loaders.folders.find("imagefolder", tmp_path)["train"].files
    for name in order[:2]:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError) as error:
        make_loader(Config(dataset="imagefolder", data_root=str(tmp_path), batch_size=2), "train")
    assert all(f"{name}: empty file" in str(error.value) for name in order[:2])


def test_order_seed_takes_the_order_out_of_the_seed(make):
    ordered = dataclasses.replace(CONFIG, seed=7, order_seed=CONFIG.seed)
    for mine, theirs in zip(everything(make("memory", config=ordered)), everything(make("memory")), strict=True):
        assert torch.equal(mine, theirs)
    assert Config(order_seed=None).identity == Config().identity != Config(order_seed=0).identity


@pytest.mark.parametrize("count", [100, 359])
def test_held_out_training_images_replace_the_validation_set(count):
    config = dataclasses.replace(CONFIG, data_args=CONFIG.data_args | {"holdout": count})
    whole, kept, held = (
        np.sort(torch.cat([targets for _, targets in make_loader(c, split)]).numpy())
        for c, split in ((CONFIG, "train"), (config, "train"), (config, "val"))
    )
    info = check(config)
    assert (info.train, info.val) == (check(CONFIG).train - count, count) and len(held) == count
    shares = np.bincount(held) / count * len(whole) / np.bincount(whole)
    np.testing.assert_allclose(shares, 1, atol=0.12)  # every class gives its share
    images = loaders._source(config)
    train, val = (images.read(split).offsets for split in ("train", "val"))
    assert len(np.union1d(train, val)) == check(CONFIG).train and not np.intersect1d(train, val).size


def test_what_was_decided_is_not_decided_again_whatever_memory_is_free_later(pictures, monkeypatch):
    config = Config(dataset="imagefolder", data_root=str(pictures), batch_size=4)
    decided = decide(config, check(config).loader)
    monkeypatch.setattr(loaders, "free_memory", None)  # nobody asks
    made = loaders.make_loaders(config, decided)
    assert {type(loader).__name__ for loader in made.values()} == {"MemoryLoader"}
    assert check(config, loader="ffcv").loader == "ffcv"


def test_images_that_fill_the_gpu_come_from_the_file(pictures, monkeypatch):
    config = Config(dataset="imagefolder", data_root=str(pictures), batch_size=4, processes=2)
    monkeypatch.setattr(loaders, "usable_gpus", lambda config: 4)
    for free, kind in ((10**9, "memory"), (1000, "ffcv")):
        monkeypatch.setattr(loaders, "free_gpu_memory", lambda gpus, free=free: free if gpus == 2 else None)
        assert check(config).loader == kind


def test_no_picture_is_listed_where_the_written_file_alone_is_too_large(pictures, monkeypatch):
    monkeypatch.setattr(loaders, "free_memory", lambda: 1000)
    monkeypatch.setattr(loaders.folders, "find", None)
    loaders._folder_source.cache_clear()
    assert check(Config(dataset="imagefolder", data_root=str(pictures), batch_size=4)).loader == "ffcv"


def test_evaluation_asks_nothing_of_training_data(tmp_path):
    for i in range(6):
        (tmp_path / "val" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "val" / "ab"[i % 2] / f"{i}.png")
    config = Config(dataset="imagefolder", data_root=str(tmp_path), batch_size=5000, data_args={"image_size": 8})
    assert len(everything(make_loader(config, "val"))[1]) == 6
    with pytest.raises(UsageError, match=r"has val/ but no train/"):
        check(config)
