"""Evaluate the weights of runs, and of files of any origin, outside of training. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from research.checkpoints import weights
from research.config import Config
from research.hooks.base import Hook
from research.hooks.logit_stats import LogitStats, means
from research.measures.evaluate import evaluate
from research.runs.network import ScratchRun
from research.runs.stored import find_stored
from research.training.prepare import prepare_evaluation


def evaluate_weights(
    paths: Iterable[Path], given: Mapping[str, Any] | None = None, last: bool = False, ema: bool = False
) -> list[dict[str, Any]]:
    """Evaluate the weights of each path on its validation set.

    Args:
        paths: folders of runs, or files: what a run keeps, safetensors, or a published checkpoint.
        given: parameters that win over those of the run; for a foreign file, what network and data it is of. A file
            that names its network needs only ``dataset``.
        last: of a run, the newest checkpoint instead of the weights that evaluated best.
        ema: the moving average of the weights.

    Returns:
        One row each: ``weights`` (what was read), ``images``, ``correct`` (top-1), ``top1`` and ``top5`` in percent,
        ``loss`` (cross-entropy of the raw logits, nats), and the ``norm``, ``mean``, ``max`` and ``var`` of the logits.

    Raises:
        UsageError: a path or parameter is wrong, or weights do not fit their network.
    """
    found = [find_stored(Path(path), given, last=last, ema=ema) for path in paths]  # all, before the first is evaluated
    return [_evaluated(*each) for each in found]


def watch_validation(path: Path, config: Config, tensors: dict[str, Tensor], watcher: Hook) -> dict[str, float]:
    """Evaluate the weights ``tensors`` (read from ``path``) once; ``watcher`` sees every batch. Returns the result."""
    run = ScratchRun(path.parent, config)
    prepare_evaluation(run)
    weights.load_into(run.model, tensors, path)
    watcher.setup(run)
    run.hooks = {"watcher": watcher}
    try:
        return evaluate(run, run.model)
    finally:
        run.val_loader.close()


def _evaluated(path: Path, config: Config, tensors: dict[str, Tensor]) -> dict[str, Any]:
    logits = LogitStats()
    row = watch_validation(path, config, tensors, logits)
    correct = round(row["top1"] * row["images"] / 100)
    kept = {name: row[name] for name in ("top1", "top5", "loss")}
    return {"weights": str(path), "images": row["images"], "correct": correct, **kept, **means(logits.val)}
