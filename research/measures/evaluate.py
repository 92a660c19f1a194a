"""Evaluation: exact on any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from research.distributed import all_reduce, broadcast_buffers

if TYPE_CHECKING:
    from research.runs.run import Run


@torch.inference_mode()
def evaluate(run: Run, model: nn.Module, between: Callable[[int], None] = lambda batch: None) -> dict[str, float]:
    """Loss (cross-entropy, nats) and top-1/top-5 (percent) of ``model`` over the validation set, as a row of metrics.

    Every sample counts exactly once on any number of ranks; the row has ``images`` and ``seconds`` too. ``between`` is
    called with the number of every batch before it goes through the model.
    """
    started = time.perf_counter()
    broadcast_buffers(model)
    hooks = list(run.hooks.values()) if model is run.model else []
    was_training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=run.device)  # loss, top-1, top-5, images
    for batch, (inputs, targets) in enumerate(run.val_loader):
        between(batch)
        with run.autocast:
            logits = model(inputs)
        for hook in hooks:
            hook.evaluated(run, logits, targets)
        ranked = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        sums += torch.stack([loss, ranked[:, 0].sum(), ranked.sum(), torch.tensor(len(targets), device=run.device)])
    loss, top1, top5, images = all_reduce(sums).tolist()
    model.train(was_training)
    return {
        "loss": loss / images,
        "top1": 100 * top1 / images,
        "top5": 100 * top5 / images,
        "images": int(images),
        "seconds": time.perf_counter() - started,
    }
