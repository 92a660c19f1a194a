"""What is drawn for each image, from (seed, epoch, index) alone: the order, crops, mirroring, colours, what is erased.

Every random number is a hash of (seed, epoch, sample index, number of the draw), so it does not matter which loader,
process or thread asks, or in which order. Drawing is vectorised over samples; what touches pixels (`pixel_kernels.py`
on the CPU, `torch_pixels.py` in torch, `after_crop.py`) gets these decisions and draws nothing.
"""

from __future__ import annotations

import numpy as np

from research.data.augment import Augment

TRIES = 10  # of a box of random area and aspect, as in torchvision
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)  # share of the image and height / width, as in torchvision
DRAW = np.dtype(
    [("top", "<f4"), ("left", "<f4"), ("rows", "<f4"), ("columns", "<f4")]
    + [("flip", "<u1"), ("reflect", "<u1"), ("order", "<u1"), ("cut_row", "<i2"), ("cut_column", "<i2")]
    + [("brightness", "<f4"), ("contrast", "<f4"), ("saturation", "<f4")]
    + [("erased_top", "<i2"), ("erased_left", "<i2"), ("erased_rows", "<i2"), ("erased_columns", "<i2")]
    + [("bits", "<i8")]
)
"""What happens to one image: the box of the source (pixels, may reach outside where padded), whether it is mirrored
and whether what lies outside is the image's reflection, in which of the 3! orders colours change and by which factors,
the centre of the cut-out square and the box that is erased (output pixels; no rows: none), and random bits of its own
for whatever else is drawn of it."""


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the training samples in an epoch: int64 (count,), the same on any machine and library version."""
    return np.argsort(_hash(np.arange(count), seed, epoch, draw=0), kind="stable")


def bits_of_batch(batch: int, seed: int, epoch: int) -> int:
    """64 random bits for what is drawn once for a whole step."""
    return int(_hash(np.array([batch]), seed, epoch, draw=10)[0])


def held_out(labels: np.ndarray, count: int | None = None) -> np.ndarray:
    """Which samples are kept for validation: bool (N,), spread evenly over the classes, always the same ones.

    ``count`` of them, or one in five.
    """
    order = np.lexsort((_hash(np.arange(len(labels)), 0, 0, draw=0), labels))
    places = np.arange(4, len(labels), 5) if count is None else np.arange(1, count + 1) * len(labels) // count - 1
    chosen = np.zeros(len(labels), bool)
    chosen[order[places]] = True
    return chosen


def draw_training(
    augment: Augment, indices: np.ndarray, heights: np.ndarray, widths: np.ndarray, seed: int, epoch: int, size: int
) -> np.ndarray:
    """What happens to training samples ``indices`` of the given sizes in ``epoch``: DRAW (n,)."""

    def uniform(number: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        return (_hash(indices[rows], seed, epoch, number) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    draws = draw_evaluation(augment, heights, widths, size)
    if augment.crop == "pad" and augment.padding:
        draws["top"] = np.floor(uniform(1) * (2 * augment.padding + 1)) - augment.padding
        draws["left"] = np.floor(uniform(2) * (2 * augment.padding + 1)) - augment.padding
        draws["reflect"] = augment.pad_mode == "reflect"
    elif augment.crop == "resized":
        _draw_resized(augment, draws, heights, widths, uniform)
    if augment.flip:
        draws["flip"] = uniform(3) < 0.5
    if augment.cutout:
        draws["cut_row"], draws["cut_column"] = np.floor(uniform(4) * size), np.floor(uniform(5) * size)
    if augment.jitter:
        draws["order"] = np.floor(uniform(6) * 6)
        for number, name in enumerate(("brightness", "contrast", "saturation"), start=7):
            draws[name] = 1 + augment.jitter * (2 * uniform(number) - 1)
    if augment.erase:
        _draw_erased(augment, draws, size, uniform)
    if augment.randaugment or augment.erase_mode != "const":
        draws["bits"] = _hash(indices, seed, epoch, 12).view(np.int64)
    return draws


def draw_evaluation(augment: Augment, heights: np.ndarray, widths: np.ndarray, size: int) -> np.ndarray:
    """The centre crop of the resized image as one box of the source: DRAW (n,).

    The result is that of torchvision's Resize (shorter side to ``eval_resize``, or as in timm to size / ``crop_pct``)
    and CenterCrop.
    """
    draws = np.zeros(len(heights), DRAW)
    short = np.minimum(heights, widths)
    resize = int(size / augment.crop_pct + 1e-9) if augment.crop_pct else augment.eval_resize or size
    for side, start, extent in ((heights, "top", "rows"), (widths, "left", "columns")):
        resized = np.where(side == short, resize, resize * side // short)
        draws[start] = np.rint((resized - size) / 2) * side / resized
        draws[extent] = size * side / resized
    for name in ("brightness", "contrast", "saturation"):
        draws[name] = 1
    return draws


def _draw_resized(augment: Augment, draws: np.ndarray, heights: np.ndarray, widths: np.ndarray, uniform) -> None:
    """Random resized crop (Szegedy et al. 2015; torchvision's rule): ten tries, else the largest centre crop."""
    low, high = augment.scale
    log_low, log_high = np.log(augment.ratio)
    left_over = np.arange(len(draws))
    for attempt in range(TRIES):
        H, W = heights[left_over], widths[left_over]
        area = H * W * (low + (high - low) * uniform(16 + attempt, left_over))
        aspect = np.exp(log_low + (log_high - log_low) * uniform(32 + attempt, left_over))
        w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (w > 0) & (w <= W) & (h > 0) & (h <= H)
        rows = left_over[fits]
        draws["rows"][rows], draws["columns"][rows] = h[fits], w[fits]
        draws["top"][rows] = np.floor(uniform(48 + attempt, rows) * (H[fits] - h[fits] + 1))
        draws["left"][rows] = np.floor(uniform(64 + attempt, rows) * (W[fits] - w[fits] + 1))
        left_over = left_over[~fits]
        if not len(left_over):
            return
    H, W = heights[left_over], widths[left_over]
    narrow, wide = W / H < augment.ratio[0], W / H > augment.ratio[1]
    h = np.maximum(1, np.where(narrow, np.rint(W / augment.ratio[0]), H))
    w = np.maximum(1, np.where(wide, np.rint(H * augment.ratio[1]), W))
    draws["rows"][left_over], draws["columns"][left_over] = np.minimum(h, H), np.minimum(w, W)
    draws["top"][left_over] = (H - draws["rows"][left_over]) // 2
    draws["left"][left_over] = (W - draws["columns"][left_over]) // 2


def _draw_erased(augment: Augment, draws: np.ndarray, size: int, uniform) -> None:
    """Random erasing (Zhong et al. 2020; torchvision's rule): ten tries for a box that fits, else nothing is erased."""
    (low, high), (log_low, log_high) = ERASED_AREA, np.log(ERASED_ASPECT)
    left_over = np.flatnonzero(uniform(11) < augment.erase)
    for attempt in range(TRIES):
        area = size * size * (low + (high - low) * uniform(80 + attempt, left_over))
        aspect = np.exp(log_low + (log_high - log_low) * uniform(96 + attempt, left_over))
        h, w = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (h < size) & (w < size)
        rows = left_over[fits]
        draws["erased_rows"][rows], draws["erased_columns"][rows] = h[fits], w[fits]
        draws["erased_top"][rows] = np.floor(uniform(112 + attempt, rows) * (size - h[fits] + 1))
        draws["erased_left"][rows] = np.floor(uniform(128 + attempt, rows) * (size - w[fits] + 1))
        left_over = left_over[~fits]


def more_bits(bits: np.ndarray, number: int) -> np.ndarray:
    """64 further random bits, the ``number``-th, for each of ``bits`` (n,) of a DRAW: uint64 (n,)."""
    return _mix(bits.view(np.uint64) ^ np.uint64(number))


def _hash(indices: np.ndarray, seed: int, epoch: int, draw: int) -> np.ndarray:
    """64 random bits for every index: uint64 (n,). splitmix64's finaliser (Steele et al. 2014), applied in a chain."""
    key = _mix(_mix(_mix(np.array([seed & (2**64 - 1)], np.uint64)) ^ np.uint64(epoch)) ^ np.uint64(draw))
    return _mix(_mix(np.asarray(indices).astype(np.uint64) ^ key))


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
