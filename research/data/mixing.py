"""Images of a step mixed with each other by torchvision's transforms, whose targets are then distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from research.data.augment import Augment
from research.data.draws import bits_of_batch
from research.data.loader import DataInfo
from research.distributed import from_previous_rank


class Mixing:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) with one draw for a step; neither leaves it as it is.

    Every image is mixed with the one before it in the step, the first with the last, whichever processes have them.
    Where both are on, every step draws one of them. A draw depends on (seed, epoch, batch) alone.
    """

    def __init__(self, augment: Augment, info: DataInfo, seed: int):
        self.seed, self.transform = seed, transform_of(augment, info.classes)

    def __call__(self, inputs: Tensor, targets: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Mix ``inputs`` (B, C, H, W) with ``targets`` int64 (B,), this process's share of step ``batch`` of ``epoch``.

        The targets become distributions, float32 (B, classes).
        """
        if self.transform is None:
            return inputs, targets
        before = (from_previous_rank(values[-1:]) for values in (inputs, targets))
        pairs = [torch.cat([first, values]) for first, values in zip(before, (inputs, targets), strict=True)]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(bits_of_batch(batch, self.seed, epoch))
            mixed = self.transform(*pairs)
        return mixed[0][1:], mixed[1][1:]


def transform_of(augment: Augment, classes: int) -> Module | None:
    """torchvision's transform of a batch, which mixes each image with the one before it."""
    if not augment.mixed:
        return None
    from torchvision.transforms import v2  # takes a second

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    transforms = [kinds[name](alpha=getattr(augment, name), num_classes=classes) for name in augment.mixed]
    return v2.RandomChoice(transforms) if len(transforms) > 1 else transforms[0]


def labels_of(targets: Tensor) -> Tensor:
    """The class of every target, int64 (B,): itself, or the one with the largest share of a distribution (B, C)."""
    return targets.argmax(1) if targets.ndim == 2 else targets
