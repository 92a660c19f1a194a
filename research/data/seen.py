"""What training sees of an image, epoch by epoch: from the loader, as a run would get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from research.data.augment import Augment
from research.data.choice import drawn_arguments, make_loader, make_mixing
from research.data.datasets import describe
from research.data.loader import Loader
from research.data.mixing import Mixing
from research.errors import UsageError


@dataclass(frozen=True)
class Seen:
    """Training images and their forms in some epochs, in 0..1 before normalisation."""

    images: tuple[int, ...]  # places in the training set
    epochs: tuple[int, ...]  # 0-based
    labels: np.ndarray  # (n,) int64
    plain: np.ndarray  # (n, H, W, C) float32, as evaluation would see them
    augmented: np.ndarray  # (n, epochs, H, W, C) float32; NaN in an epoch that left the image out
    shares: np.ndarray  # (n, epochs) float32 of the image's own label in its target; 1 unless images are mixed


def seen(config, images: Sequence[int], epochs: Sequence[int]) -> Seen:
    """What a run with ``config`` sees of training ``images`` in each of ``epochs``.

    Mixed images are those of the steps of that run; others are rendered alone, which gives the same pixels.

    Raises:
        UsageError: there is no such image, its data set is one of vectors, or cannot be read.
    """
    dataset = describe(config.dataset)
    if dataset.kind == "vectors":
        raise UsageError(f"{config.dataset} is a set of vectors: it has no pictures, and nothing augments it")
    drawn = drawn_arguments(config)
    neutral = {name: getattr(Augment(), name) for name in drawn}
    as_stored = make_loader(replace(config, data_args={**config.data_args, **neutral}, batch_size=1), "train")
    loader = make_loader(config if drawn.keys() & {"mixup", "cutmix"} else replace(config, batch_size=1), "train")
    try:
        if wrong := [image for image in images if not 0 <= image < loader.info.train]:
            raise UsageError(f"{config.dataset} has {loader.info.train:,} training images, and no image {wrong[0]}")
        rows = [next(as_stored.in_order().batches(image, image + 1)) for image in images]
        labels = np.array([int(targets) for _, targets in rows])
        mixing = make_mixing(config, loader)
        forms = [[_in_epoch(loader, mixing, epoch, image) for epoch in epochs] for image in images]
    finally:
        loader.close()
        as_stored.close()
    plain = np.stack([_picture(inputs[0], loader) for inputs, _ in rows])
    blank = np.full_like(plain[0], np.nan)
    augmented = [[blank if form is None else _picture(form[0], loader) for form in row] for row in forms]
    shares = [[_share(form, label) for form in row] for row, label in zip(forms, labels, strict=True)]
    return Seen(tuple(images), tuple(epochs), labels, plain, np.array(augmented), np.array(shares, np.float32))


def _in_epoch(loader: Loader, mixing: Mixing, epoch: int, image: int) -> tuple[Tensor, Tensor] | None:
    """Input and target of ``image`` in ``epoch``; none if it is among those left over after the last full step."""
    loader.set_epoch(epoch)
    place = np.flatnonzero(loader.rows(0, len(loader)) == image)
    if not len(place):
        return None
    step, offset = divmod(int(place[0]), loader.batch)
    inputs, targets = mixing(*next(loader.batches(step, step + 1)), epoch, step)
    return inputs[offset], targets[offset]


def _share(form: tuple[Tensor, Tensor] | None, label: int) -> float:
    if form is None:
        return float("nan")
    return float(form[1][label]) if form[1].ndim else 1.0


def _picture(inputs: Tensor, loader: Loader) -> np.ndarray:
    """(C, H, W) as the network gets it -> (H, W, C) in 0..1."""
    mean, std = (np.array(values, np.float32) for values in (loader.info.mean, loader.info.std))
    return np.clip(inputs.permute(1, 2, 0).cpu().numpy() * std + mean, 0, 1)
