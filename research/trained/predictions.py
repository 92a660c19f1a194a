"""Outputs of a finished run on its validation set, for analyses that need more than its metrics. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from research.checkpoints import weights
from research.config import Config
from research.errors import UsageError
from research.hooks.base import Hook
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
