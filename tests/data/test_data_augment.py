"""Augmentation: numbers from (seed, epoch, index) alone, boxes inside images, pixels as torchvision makes them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from research.config import Config
from research.data import torch_pixels as gather
from research.data.augment import Augment
from research.data.choice import check
from research.data.draws import DRAW, _hash, draw_evaluation, draw_training, permutation
from research.data.pixel_kernels import render
from research.errors import UsageError

SIDES = st.integers(1, 400)


def rendered(image, draw, size, finish=None):
    """One image through the compiled kernel, in 0..255 unless ``finish`` says otherwise."""
    channels = image.shape[2]
    lines = (np.ones(size * channels, np.float32), np.zeros(size * channels, np.float32))
    out = np.empty((size, size, channels), np.float32)
    render(image, draw, (*lines, *(finish or (0, False, True, False))), out)
    return out


def picture(height, width, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def sizes(*pairs):
    return tuple(np.array(side, np.int64) for side in zip(*pairs, strict=True))


def test_random_bits_are_splitmix64_and_never_change():
    assert _hash(np.arange(3), 0, 0, 0).tolist() == [8695987549771912286, 3271064386196677695, 3680708379229736717]
    assert permutation(8, seed=3, epoch=5).tolist() == [5, 0, 7, 2, 4, 3, 1, 6]


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 10**6))
@settings(max_examples=30)
def test_an_epoch_visits_every_sample_once(count, seed, epoch):
    assert np.array_equal(np.sort(permutation(count, seed, epoch)), np.arange(count))


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8), st.integers(0, 99))
@settings(max_examples=50)
def test_resized_crops_lie_inside_and_do_not_depend_on_their_company(pairs, seed):
    augment = Augment(crop="resized", image_size=32)
    heights, widths = sizes(*pairs)
    indices = np.arange(len(pairs)) * 7
    draws = draw_training(augment, indices, heights, widths, seed, 2, 32)
    assert (draws["top"] >= 0).all() and (draws["left"] >= 0).all()
    assert (draws["rows"] >= 1).all() and (draws["top"] + draws["rows"] <= heights).all()
    assert (draws["columns"] >= 1).all() and (draws["left"] + draws["columns"] <= widths).all()
    alone = [draw_training(augment, indices[[i]], heights[[i]], widths[[i]], seed, 2, 32)[0] for i in range(len(pairs))]
    assert draws.tolist() == [draw.item() for draw in alone]


def test_resized_crops_have_the_published_range_of_area_and_aspect():
    heights = widths = np.full(20_000, 1000)
    draws = draw_training(Augment(crop="resized", image_size=8), np.arange(20_000), heights, widths, 0, 0, 8)
    area, aspect = draws["rows"] * draws["columns"] / 1e6, draws["columns"] / draws["rows"]
    assert 0.079 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert abs(np.log(aspect)).max() < np.log(4 / 3) + 0.01
    assert abs(np.log(aspect).mean()) < 0.01  # log-uniform: as often wide as tall


def test_pad_crops_and_flips_are_uniform():
    heights = widths = np.full(50_000, 32)
    draws = draw_training(Augment(crop="pad", padding=4, flip=True), np.arange(50_000), heights, widths, 1, 0, 32)
    counts = np.unique(np.stack([draws["top"], draws["left"]]), axis=1, return_counts=True)[1]
    assert len(counts) == 81
    assert ((counts - 50_000 / 81) ** 2 / (50_000 / 81)).sum() < 125  # chi-square, 80 degrees of freedom, p = 0.001
    assert abs(draws["flip"].mean() - 0.5) < 0.01


def test_the_neutral_augmentation_is_the_evaluation():
    heights, widths = sizes((40, 50), (33, 90))
    augment = Augment(image_size=32)
    trained = draw_training(augment, np.arange(2), heights, widths, 5, 6, 32)
    assert np.array_equal(trained, draw_evaluation(augment, heights, widths, 32))


@pytest.mark.parametrize("height, width", [(300, 400), (64, 90), (500, 260)])
def test_evaluation_is_resize_then_centre_crop_of_torchvision(height, width):
    smooth = v2.functional.resize(torch.from_numpy(picture(12, 12)).permute(2, 0, 1), [height, width]).permute(1, 2, 0)
    image = smooth.numpy().copy()
    draw = draw_evaluation(Augment(image_size=56, eval_resize=64), *sizes((height, width)), 56)[0]
    expected = F.center_crop(F.resize(smooth.permute(2, 0, 1).float(), [64], antialias=True), [56]).permute(1, 2, 0)
    assert np.abs(rendered(image, draw, 56, (0, False, False, False)) - expected.numpy()).max() < 1e-2


@pytest.mark.parametrize("box", [(3, 5, 100, 80), (0, 0, 20, 30), (50, 10, 1, 1)])
def test_resized_crop_is_that_of_torchvision(box):
    image = picture(120, 110)
    draw = np.zeros(1, DRAW)
    draw["top"], draw["left"], draw["rows"], draw["columns"] = box
    expected = F.resized_crop(torch.from_numpy(image).permute(2, 0, 1).float(), *box, [32, 32], antialias=True)
    assert np.abs(rendered(image, draw[0], 32) - expected.permute(1, 2, 0).numpy()).max() < 1e-2


def dense_filter(start, extent, pixels, size):
    """The antialiased triangle as a float64 matrix (size, pixels) over the pixels of the box."""
    step = extent / size
    centres = start + (np.arange(size)[:, None] + 0.5) * step
    at = np.arange(pixels)
    weights = np.maximum(0, 1 - np.abs(at + 0.5 - centres) / max(step, 1)) * ((at >= start) & (at < start + extent))
    return weights / weights.sum(1, keepdims=True)


@given(st.tuples(SIDES, SIDES), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(0, 999))
@settings(max_examples=40)
def test_resampled_pixels_are_the_float64_sums_to_the_last_digits_of_float32(pair, channels, size, seed):
    image = picture(*pair, seed, channels)
    draw = draw_training(Augment("resized", flip=True), np.array([seed]), *sizes(pair), seed, 0, size)[0]
    rows = dense_filter(float(draw["top"]), float(draw["rows"]), pair[0], size)
    columns = dense_filter(float(draw["left"]), float(draw["columns"]), pair[1], size)
    expected = np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(np.float64), optimize=True)
    expected = expected[:, ::-1] if draw["flip"] else expected
    assert np.abs(rendered(image, draw, size) - expected).max() < 2e-4


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_crop_flip_and_cutout_equal_numpy(mode):
    image = picture(32, 32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode)
    for top, left, flip, row, column in [(-4, 3, 1, 0, 31), (2, -1, 0, 16, 16), (4, 4, 1, 31, 5)]:
        draw = np.zeros(1, DRAW)
        draw["top"], draw["left"], draw["rows"], draw["columns"] = top, left, 32, 32
        draw["flip"], draw["reflect"], draw["cut_row"], draw["cut_column"] = flip, mode == "reflect", row, column
        expected = padded[4 + top : 36 + top, 4 + left : 36 + left].astype(np.float32)
        expected = expected[:, ::-1].copy() if flip else expected
        expected[max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
        assert np.array_equal(rendered(image, draw[0], 32, (16, False, False, False)), expected)


@given(st.data(), st.integers(1, 40), st.sampled_from([1, 3]), st.booleans(), st.integers(0, 99))
@settings(max_examples=60)
def test_reflected_pad_crop_is_that_of_torch_at_any_size(data, size, channels, flip, seed):
    augment = Augment(crop="pad", padding=data.draw(st.integers(0, size - 1)), pad_mode="reflect", flip=flip)
    image, side = picture(size, size, seed, channels), sizes((size, size))
    draws = draw_training(augment, np.array([seed]), *side, seed, 0, size)
    padded = F.pad(torch.from_numpy(image).permute(2, 0, 1), augment.padding, padding_mode="reflect")
    at = (augment.padding + int(draws[name][0]) for name in ("top", "left"))
    expected = F.crop(padded, *at, size, size)
    expected = (F.hflip(expected) if draws["flip"][0] else expected).permute(1, 2, 0).float()
    assert np.array_equal(rendered(image, draws[0], size, (0, False, False, False)), expected)
    columns = {name: torch.from_numpy(draws[name].copy()) for name in draws.dtype.names}
    stored = (torch.from_numpy(image.reshape(-1)), torch.zeros(1, dtype=torch.long), *map(torch.from_numpy, side))
    lines = (torch.ones(size, channels), torch.zeros(size, channels))
    assert torch.equal(gather.render(*stored, columns, (*lines, 0, False, False, False), size, 0)[0], expected)


def test_how_images_are_padded_changes_no_draw():
    sides = np.full(500, 32)
    drawn = {mode: draw_training(Augment("pad", 4, mode, flip=True), np.arange(500), sides, sides, 0, 0, 32)
             for mode in ("zero", "reflect")}  # fmt: skip
    for name in DRAW.names:
        assert np.array_equal(drawn["zero"][name], drawn["reflect"][name]) == (name != "reflect")


@pytest.mark.parametrize("order", range(6))
def test_colour_jitter_is_that_of_torchvision_in_every_order(order):
    image = picture(16, 16)
    draw = np.zeros(1, DRAW)
    draw["rows"] = draw["columns"] = 16
    draw["order"], draw["brightness"], draw["contrast"], draw["saturation"] = order, 1.3, 0.6, 1.5
    changes = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation]
    first = order // 2
    second = (first + 1 + order % 2) % 3
    expected = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    for i in (first, second, 3 - first - second):
        expected = changes[i](expected, float(draw[("brightness", "contrast", "saturation")[i]][0]))
    found = rendered(image, draw[0], 16, (0, True, False, False)) / 255
    assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() < 1e-3


def test_the_six_orders_of_colour_jitter_are_the_six_permutations():
    orders = set()
    for order in range(6):
        first = order // 2
        second = (first + 1 + order % 2) % 3
        orders.add((first, second, 3 - first - second))
    assert len(orders) == 6 and all(sorted(o) == [0, 1, 2] for o in orders)


@given(st.tuples(SIDES, SIDES), st.integers(0, 999), st.sampled_from([0.0, 0.4]), st.booleans())
@settings(max_examples=25)
def test_torch_renders_what_the_compiled_kernel_renders(pair, seed, jitter, cubic):
    size, image = 24, picture(*pair, seed)
    augment = Augment(crop="resized", image_size=size, flip=True, jitter=jitter, cutout=8)
    draws = draw_training(augment, np.array([seed]), *sizes(pair), 0, 0, size)
    expected = rendered(image, draws[0], size, (8, jitter > 0, True, cubic))
    columns = {name: torch.from_numpy(draws[name].copy()) for name in draws.dtype.names}
    stored = (torch.from_numpy(image.reshape(-1)), torch.zeros(1, dtype=torch.long), *map(torch.tensor, sizes(pair)))
    lines = (torch.ones(size, 3), torch.zeros(size, 3))
    taps = gather.taps_needed(draws, size, cubic)
    found = gather.render(*stored, columns, (*lines, 8, jitter > 0, True, cubic), size, taps)[0]
    assert np.abs(found.numpy() - expected).max() < 2e-3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"padding": 4}, "data_args.padding=4: has no effect: it belongs to crop=pad; this is crop=none"),
        ({"crop": "pad", "padding": 1, "scale": [0.5, 1.0]}, "data_args.scale=.*it belongs to crop=resized"),
        ({"ratio": [1.0, 1.0]}, "data_args.ratio=.*it belongs to crop=resized; this is crop=none"),
        ({"image_size": 16, "eval_resize": 16}, "data_args.eval_resize=16: has no effect: the centre crop has that"),
    ],
)
def test_what_is_given_and_cannot_act_is_refused_but_stays_readable_where_it_is_stored(given, told):
    with pytest.raises(UsageError, match=told):
        Config.load({"data_args": given})
    stored = Config().to_dict() | {"data_args": given}
    assert dict(Config.stored(stored).data_args) == given


def test_what_a_data_set_has_by_itself_is_no_mistake():
    assert Config.load({"dataset": "cifar10", "data_args.crop": "none"}).data_args["crop"] == "none"  # padding stays 4
    assert Config.load({"dataset": "imagenet", "model": "resnet18", "data_args.crop": "none"})


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 66), (200, 131), (40, 90)])
def test_bicubic_evaluation_is_that_of_pillow(height, width):
    image = picture(height, width)
    short = min(height, width)
    draw = draw_evaluation(Augment(image_size=32, eval_resize=32), *sizes((height, width)), 32)[0]
    out = rendered(image, draw, 32, (0, False, False, True))
    resized = [round(32 * side / short) if side != short else 32 for side in (width, height)]
    assert out.min() >= 0 and out.max() <= 255
    if height == width:  # else the published way rounds the longer side to whole pixels before it crops
        expected = np.asarray(Image.fromarray(image).resize(resized, Image.Resampling.BICUBIC), np.float32)
        assert np.abs(out - expected).max() <= 1.01  # Pillow rounds after either direction


def test_crop_pct_is_the_resize_of_timm():
    one = draw_evaluation(Augment(image_size=224, crop_pct=0.875), *sizes((300, 400)), 224)
    other = draw_evaluation(Augment(image_size=224, eval_resize=256), *sizes((300, 400)), 224)
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mean": [0.5]}, None),
        ({"mean": [0.5, 0.5]}, r"mean=\[0.5, 0.5\]: expected 1 numbers, one a channel of digits"),
        ({"std": [0.0]}, r"std=\[0.0\]: must be > 0"),
        ({"std": [0.2], "normalize": False}, "data_args.std=.*nothing is normalised, with normalize=false"),
    ],
)
def test_normalisation_may_be_given(given, told):
    if told:
        with pytest.raises(UsageError, match=told):
            Config.load({"data_args": given})
        return
    config = Config.load({"data_args": given})
    assert check(config).mean == (0.5,) and check(config).std == check(Config()).std
