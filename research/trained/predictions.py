"""Outputs of a finished run on its validation set, and the images themselves, for analyses that need more than its
metrics. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from research.checkpoints import weights
from research.config import Config
from research.data.choice import make_loader
from research.data.datasets import describe
from research.errors import UsageError
from research.hooks.base import Hook
from research.plugins.scope import plugged
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.trained.evaluate_weights import watch_validation


class Keep(Hook):
    """Keeps every logit and label of an evaluation."""

    def __init__(self):
        self.logits: list[Tensor] = []
        self.targets: list[Tensor] = []

    def evaluated(self, run: Run, logits: Tensor, targets: Tensor) -> None:
        self.logits.append(logits.float().cpu())
        self.targets.append(targets.cpu())


def validation_logits(directory: Path | str, given: Mapping[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) float32 and labels (N,) int64 of a run's best weights, in the order of its validation set.

    ``given`` wins over the run's own parameters, such as where its data are, or the device.

    Raises:
        UsageError: no such run, no weights yet, or its data are not here.
    """
    directory = Path(directory)
    config = Config.load(Run.open(directory).config.to_dict(), given or {})
    path = RunPaths(directory).best
    if not path.exists():
        raise UsageError(f"{directory.name} has no best.safetensors: it is written after the first epoch")
    keep = Keep()
    watch_validation(path, config, weights.read(path).tensors, keep)
    return torch.cat(keep.logits).numpy(), torch.cat(keep.targets).numpy()


def validation_pictures(
    directory: Path | str, places: Sequence[int], given: Mapping[str, Any] | None = None
) -> np.ndarray:
    """The images at ``places`` (M,) in the order of :func:`validation_logits`: (M, H, W) or (M, H, W, 3), in 0..1.

    They are as the network sees them, cropped and resized, but not normalised.

    Raises:
        UsageError: its samples are no images, or its data are not here.
    """
    config = Config.load(Run.open(directory).config.to_dict(), given or {})
    plain = {"data_args": {**config.data_args, "normalize": False}, "device": "cpu"}
    with plugged(config.plugin):
        if describe(config.dataset).kind == "vectors":
            raise UsageError(f"{config.dataset} has no pictures to show: its samples are vectors")
        loader, found, start = make_loader(Config.load(config.to_dict(), plain), "val"), {}, 0
    try:
        for inputs, _ in loader:
            found |= {place: inputs[place - start] for place in places if start <= place < start + len(inputs)}
            start += len(inputs)
    finally:
        loader.close()
    pictures = torch.stack([found[place] for place in places]).permute(0, 2, 3, 1).float().cpu().numpy()
    return pictures[..., 0] if pictures.shape[-1] == 1 else pictures
