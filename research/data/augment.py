"""Augmentation as data: where each image is cropped, flipped, cut and coloured, from (seed, epoch, index) alone.

Every random number is a hash of (seed, epoch, sample index, number of the draw), so it does not matter which loader,
process or thread asks, or in which order. Drawing is vectorised over samples; the kernels that touch pixels
(`pixel_kernels.py` on the CPU, `torch_pixels.py` in torch) get these decisions and draw nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.data.datasets import Dataset

TRIES = 10  # of the random resized crop, as in torchvision
DRAW = np.dtype(
    [("top", "<f4"), ("left", "<f4"), ("rows", "<f4"), ("columns", "<f4")]
    + [("flip", "<u1"), ("reflect", "<u1"), ("order", "<u1"), ("cut_row", "<i2"), ("cut_column", "<i2")]
    + [("brightness", "<f4"), ("contrast", "<f4"), ("saturation", "<f4")]
)
"""What happens to one image: the box of the source (pixels, may reach outside where padded), whether it is mirrored
and whether what lies outside is the image's reflection, in which of the 3! orders colours change and by which factors,
and the centre of the cut-out square (output pixels)."""


@dataclass(frozen=True)
class Augment:
    """What happens to the images of a data set; the neutral value of each parameter switches it off."""

    crop: Annotated[
        Literal["none", "pad", "resized"], "pad: random window of the padded image; resized: random area and aspect"
    ] = "none"
    padding: Annotated[int, Range(least=0), "pixels added on every side before a pad crop"] = 0
    pad_mode: Annotated[Literal["zero", "reflect"], "those pixels: 0; or the image mirrored at its border pixels"] = (
        "zero"
    )
    scale: Annotated[tuple[float, float], "resized crop: smallest and largest share of the area"] = (0.08, 1.0)
    ratio: Annotated[tuple[float, float], "resized crop: smallest and largest width / height"] = (3 / 4, 4 / 3)
    flip: Annotated[bool, "mirror every second training image, at random"] = False
    jitter: Annotated[float, Range(least=0, most=1), "brightness, contrast, saturation x U(1 - j, 1 + j)"] = 0.0
    cutout: Annotated[int, Range(least=0), "side of a square set to the mean, clipped at the border"] = 0
    mixup: Annotated[float, Range(least=0), "images of a step blended, share drawn from Beta(mixup, mixup)"] = 0.0
    cutmix: Annotated[float, Range(least=0), "a box of another image of the step, area by Beta(cutmix, cutmix)"] = 0.0
    image_size: Annotated[int, Range(least=0), "side of the network's input; 0 = as stored"] = 0
    eval_resize: Annotated[int, Range(least=0), "shorter side before the centre crop; 0 = image_size"] = 0
    crop_pct: Annotated[
        float, Range(least=0, most=1), "share of the side in the centre crop, instead of eval_resize; 0 = not given"
    ] = 0.0
    interpolation: Annotated[Literal["bilinear", "bicubic"], "filter of every resizing, antialiased"] = "bilinear"
    mean: Annotated[tuple[float, ...], "per channel, of values 0..1, to subtract; empty = the data set's"] = ()
    std: Annotated[tuple[float, ...], "per channel, to divide by; empty = the data set's"] = ()
    normalize: Annotated[bool, "subtract the data set's mean and divide by its deviation; false = 0..1"] = True
    holdout: Annotated[int, Range(least=0), "training images to evaluate on instead of the validation set"] = 0

    def contradictions(self, dataset: Dataset) -> list[str]:
        """Contradictions between values that are valid one by one, a line each."""
        found = []
        side = self.image_size or (dataset.shape[-1] if dataset.kind == "images" else 0)
        if not side:
            found.append(
                f"image_size=0: pictures of {dataset.name} differ in size; give the side of the network's input"
            )
        if self.eval_resize and self.eval_resize < side:
            found.append(f"eval_resize={self.eval_resize}: must be at least image_size={side}")
        if self.crop == "pad" and dataset.kind != "images":
            found.append(f"crop='pad': pictures of {dataset.name} differ in size; use crop=resized or crop=none")
        if self.crop == "pad" and dataset.kind == "images" and side != dataset.shape[-1]:
            found.append(f"crop='pad': keeps the stored size, so image_size must be {dataset.shape[-1]}, not {side}")
        if self.pad_mode == "reflect" and self.crop != "pad":
            found.append(f"pad_mode='reflect': needs crop=pad, not crop={self.crop}; or use pad_mode=zero")
        elif self.pad_mode == "reflect" and self.padding >= side:
            found.append(
                f"padding={self.padding}: an image of {side} pixels reflects at most {side - 1}; use pad_mode=zero"
            )
        channels = dataset.shape[0]
        for name in ("mean", "std"):
            if (values := getattr(self, name)) and len(values) != channels:
                found.append(f"{name}={list(values)}: expected {channels} numbers, one a channel of {dataset.name}")
        if min(self.std, default=1.0) <= 0:
            found.append(f"std={list(self.std)}: must be > 0")
        if self.crop_pct and self.eval_resize not in (0, dataset.augment.get("eval_resize", 0)):
            found.append(f"crop_pct={self.crop_pct:g}, eval_resize={self.eval_resize}: both decide the same; give one")
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                limit = " <= 1" if name == "scale" else ""
                found.append(f"{name}={[low, high]}: expected 0 < smallest <= largest{limit}")
        return found

    def without_effect(self) -> dict[str, str]:
        """Parameters without effect beside the others, with the reason; each alone is valid."""
        idle = {}
        if self.crop != "pad":
            idle |= dict.fromkeys(("padding", "pad_mode"), f"it belongs to crop=pad; this is crop={self.crop}")
        elif not self.padding:
            idle["pad_mode"] = "nothing is padded, with padding=0"
        if self.crop != "resized":
            idle |= dict.fromkeys(("scale", "ratio"), f"it belongs to crop=resized; this is crop={self.crop}")
        if not self.normalize:
            idle |= dict.fromkeys(("mean", "std"), "nothing is normalised, with normalize=false")
        if self.eval_resize == self.image_size:
            idle["eval_resize"] = "the centre crop has that size already"
        return idle

    def normalisation(self, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of every channel that inputs are normalised with."""
        if not self.normalize:
            return (0.0,) * dataset.shape[0], (1.0,) * dataset.shape[0]
        return self.mean or dataset.mean, self.std or dataset.std

    def size(self, dataset: Dataset) -> int:
        """Side of the images that the loader yields."""
        return self.image_size or dataset.shape[-1]

    @property
    def drawn(self) -> list[str]:
        """The parameters that draw a training image anew every epoch; without any, it always looks as in evaluation."""
        switches = {"crop": self.crop == "resized" or (self.crop == "pad" and self.padding > 0), "flip": self.flip}
        switches |= {"jitter": self.jitter > 0, "cutout": self.cutout > 0}
        return [name for name, on in switches.items() if on]

    @property
    def mixed(self) -> list[str]:
        """The parameters that mix the training images of a step with each other."""
        return [name for name in ("mixup", "cutmix") if getattr(self, name)]


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


def _hash(indices: np.ndarray, seed: int, epoch: int, draw: int) -> np.ndarray:
    """64 random bits for every index: uint64 (n,). splitmix64's finaliser (Steele et al. 2014), applied in a chain."""
    key = _mix(_mix(_mix(np.array([seed & (2**64 - 1)], np.uint64)) ^ np.uint64(epoch)) ^ np.uint64(draw))
    return _mix(_mix(np.asarray(indices).astype(np.uint64) ^ key))


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
