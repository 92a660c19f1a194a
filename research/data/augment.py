"""Augmentation as parameters: what may happen to the images of a data set (`draws.py` decides what does to each)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.data.datasets import Dataset


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
    randaugment: Annotated[int, Range(least=0), "RandAugment: operations on every image, one after another"] = 0
    randaugment_magnitude: Annotated[int, Range(least=0, most=30), "how strong each of them is"] = 9
    erase: Annotated[float, Range(least=0, most=1), "random erasing: share of the images that lose a box"] = 0.0
    erase_mode: Annotated[
        Literal["const", "rand", "pixel"], "what it becomes: the mean; one normal value a channel; or one a pixel"
    ] = "const"
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
        if not self.randaugment:
            idle["randaugment_magnitude"] = "it belongs to randaugment, which is 0"
        if not self.erase:
            idle["erase_mode"] = "nothing is erased, with erase=0"
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
        switches |= {"randaugment": self.randaugment > 0, "erase": self.erase > 0}
        return [name for name, on in switches.items() if on]

    @property
    def mixed(self) -> list[str]:
        """The parameters that mix the training images of a step with each other."""
        return [name for name in ("mixup", "cutmix") if getattr(self, name)]
