"""What torchvision does to images that are cropped: RandAugment to their bytes, erasing once they are normalised.

The draws say what (`draws.py`). Images with the same operation go through torchvision's kernel together, so an image
does not depend on its company, and a GPU starts some tens of kernels for a batch instead of some for every image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from research.data.augment import Augment
from research.data.draws import more_bits
from research.data.loader import Batch, DataInfo, finish
from research.data.torch_pixels import finished
from research.devices import send

CUT = ("cut_row", "cut_column")
Operation = Callable[[Tensor, int], Tensor]


class AfterCrop:
    """The last part of the augmentation of training batches, which ``augment`` may have or not.

    With RandAugment, what comes are pixels from 0 to 255, rounded here to the bytes that its operations know; they are
    normalised and cut out after it.
    """

    def __init__(self, augment: Augment, info: DataInfo, device: torch.device, training: bool):
        self.augment, self.device, self.training = augment, device, training
        if augment.randaugment:
            self.operations = rand_augment_operations(augment.randaugment_magnitude, info.shape[-1], device)
        scale, bias, *rest = finish(info, replace(augment, randaugment=0), training=True)
        lines = (send(torch.from_numpy(line).view(-1, info.shape[0]), device) for line in (scale, bias))
        self.finish = (*lines, *rest)

    def __call__(self, batches: Iterator[Batch], draws: np.ndarray) -> Iterator[Batch]:
        """``batches`` of images (B, S, S, C) with what ``draws`` (DRAW, of all of them) says done: float32."""
        if not self.training or not (self.augment.randaugment or self.augment.erase):
            yield from batches
            return
        at = 0
        for inputs, targets in batches:
            drawn = draws[at : at + len(inputs)]
            at += len(inputs)
            if self.augment.randaugment:
                inputs = inputs.round().to(torch.uint8)
                rand_augment(inputs.permute(0, 3, 1, 2), drawn["bits"], self.augment.randaugment, self.operations)
                cut = {name: send(torch.from_numpy(drawn[name].copy()), self.device) for name in CUT}
                inputs = finished(inputs, cut, self.finish)
            if self.augment.erase:
                erase(inputs.permute(0, 3, 1, 2), drawn, self.augment.erase_mode)
            yield inputs, targets


def rand_augment_operations(magnitude: int, size: int, device: torch.device | str = "cpu") -> list[Operation]:
    """The operations of RandAugment (Cubuk et al. 2020) on (B, C, S, S) uint8 and a sign, as in torchvision's.

    ``magnitude`` is 0 to 30; of what has no direction, the sign is ignored.
    """
    from torchvision.transforms.v2 import functional as F  # takes a second

    def level(first: float, last: float) -> float:
        return float(torch.linspace(first, last, 31)[magnitude])

    def affine(places: Tensor, translate=(0, 0), shear=(0.0, 0.0), center=None) -> Tensor:
        return F.affine(places, 0.0, list(translate), 1.0, list(shear), center=center)

    shear, shift = math.degrees(math.atan(level(0.0, 0.3))), int(level(0.0, 150 / 331 * size))
    angle, change, threshold = level(0.0, 30.0), level(0.0, 0.9), 255 * level(1.0, 0.0)
    moves: list[Callable[[Tensor, int], Tensor]] = [
        lambda places, sign: affine(places, shear=(sign * shear, 0.0), center=[0, 0]),
        lambda places, sign: affine(places, shear=(0.0, sign * shear), center=[0, 0]),
        lambda places, sign: affine(places, translate=(sign * shift, 0)),
        lambda places, sign: affine(places, translate=(0, sign * shift)),
        lambda places, sign: F.rotate(places, sign * angle),
    ]
    return [
        lambda x, sign: x,
        *(_moved(move, size, device) for move in moves),
        lambda x, sign: F.adjust_brightness(x, 1 + sign * change),
        lambda x, sign: F.adjust_saturation(x, 1 + sign * change),
        lambda x, sign: F.adjust_contrast(x, 1 + sign * change),
        lambda x, sign: _sharpened(x, 1 + sign * change),
        lambda x, sign: F.posterize(x, 8 - round(magnitude / 7.5)),
        lambda x, sign: F.solarize(x, threshold),
        lambda x, sign: F.autocontrast(x),
        lambda x, sign: F.equalize(x),
    ]


def _moved(move: Callable[[Tensor, int], Tensor], size: int, device: torch.device | str) -> Operation:
    """``move``, which takes every pixel from one place or makes it black, as a look-up in the places of one image.

    torchvision would compute the same places for every batch, from numbers that a GPU has to wait for.
    """
    numbered = torch.arange(1.0, size * size + 1).view(1, size, size)  # 0 is outside
    source = {sign: move(numbered, sign).flatten().long().to(device) for sign in (1, -1)}

    def operation(x: Tensor, sign: int) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        with_black = torch.cat([torch.zeros_like(pixels[:, :1]), pixels], 1)
        return with_black.index_select(1, source[sign]).view(len(x), size, size, -1).permute(0, 3, 1, 2)

    return operation


def _sharpened(x: Tensor, factor: float) -> Tensor:
    """torchvision's ``adjust_sharpness`` without its convolution, which TF32 would round on a GPU."""
    if min(x.shape[-2:]) <= 2:
        return x
    result = x.float()
    inner = result[..., 1:-1, 1:-1]
    rows = result[..., :-2, :] + result[..., 1:-1, :] + result[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = ((box + 4 * inner) / 13).round_()
    inner.add_(smooth.sub_(inner), alpha=1 - factor)
    return result.clamp_(0, 255).to(torch.uint8)


def rand_augment(images: Tensor, bits: np.ndarray, count: int, operations: list[Operation]) -> None:
    """Change every one of ``images`` (B, C, S, S) uint8, in place, by ``count`` operations that its ``bits`` draw."""
    for number in range(count):
        drawn = more_bits(bits, number)
        kinds, signs = (drawn % np.uint64(len(operations))).astype(int), np.where(drawn >> np.uint64(63), 1, -1)
        for kind, sign in {*zip(kinds.tolist(), signs.tolist(), strict=True)}:
            same = send(torch.from_numpy(np.flatnonzero((kinds == kind) & (signs == sign))), images.device)
            images[same] = operations[kind](images[same], sign)


def erase(images: Tensor, draws: np.ndarray, mode: str) -> None:
    """Fill the boxes that ``draws`` (DRAW (B,)) erase from normalised ``images`` (B, C, S, S), in place, as ``mode``.

    ``const``: the mean, 0; ``rand``: a colour; ``pixel``: noise; the latter two normally distributed.
    """
    from torchvision.transforms.v2 import functional as F

    for i in np.flatnonzero(draws["erased_rows"]):
        box = [int(draws[f"erased_{name}"][i]) for name in ("top", "left", "rows", "columns")]
        value = images.new_zeros(())
        if mode != "const":
            generator = torch.Generator().manual_seed(int(draws["bits"][i]))
            value = send(
                torch.randn(images.shape[1], *(box[2:] if mode == "pixel" else (1, 1)), generator=generator),
                images.device,
            )
        F.erase(images[i], *box, value, inplace=True)
