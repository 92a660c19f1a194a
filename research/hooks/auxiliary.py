"""Auxiliary head: a second classifier in the middle of the network, on the same labels (Szegedy et al. 2015)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from research.data.mixing import labels_of
from research.errors import UsageError
from research.hooks.base import Reasons
from research.hooks.epoch_means import EpochMeans, LogsEpochMeans
from research.layers.base import Substitute
from research.network_protocols import ScalesDecay, TakesAuxiliaryHead
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


class Auxiliary(LogsEpochMeans):
    """Add the loss of the network's auxiliary head, which exists in networks of DARTS and only with this method.

    ``mode=weighted``: loss + weight * loss of the head, as DARTS trains. ``mode=concat``: the mean of both, which is
    one cross-entropy over the two batches of logits, as the cheap-convolutions study trains its students. A network
    without such a head trains plainly, and a note says so. Rows ``auxiliary`` have the head's own loss and top-1 on
    the training set; it is not used in evaluation.
    """

    neutral = {"weight": 0.0}
    row = "auxiliary"

    def __init__(
        self,
        weight: Annotated[float, Range(least=0), "of the head's loss; 0 = no head; not used by mode=concat"] = 0.4,
        mode: Annotated[Literal["weighted", "concat"], "weighted sum of the losses, or their mean"] = "weighted",
    ):
        self.mode = mode
        self.weight = weight

    def idle(self) -> Reasons:
        if not self.weight:
            return {"mode": "there is no head, with weight=0"}
        return {"weight": "mode=concat takes the mean of both losses"} if self.mode == "concat" else {}

    def never(self, run: Run) -> str:
        if not self.weight or isinstance(run.model, TakesAuxiliaryHead):
            return ""
        return f"{run.config.model} has no auxiliary head"

    def undone(self, run: Run) -> str:
        return f"{self.never(run)}: it trained plainly" if self.never(run) else ""

    def build(self, run: Run) -> None:
        if self.weight and isinstance(run.model, TakesAuxiliaryHead):
            run.model.add_auxiliary_head()
            count_head(run)

    def setup(self, run: Run) -> None:
        if not self.weight or not isinstance(run.model, TakesAuxiliaryHead):
            return
        shape = run.train_loader.info.shape
        try:  # on a copy, because a forward pass in training changes batch statistics
            copy.deepcopy(run.model).train()(torch.zeros(2, *shape, device=run.device))
        except RuntimeError as error:
            raise UsageError(f"auxiliary: the head does not fit images of shape {tuple(shape)}: {error}") from None
        self.means = EpochMeans(["loss", "top1"], run.device)

    def epoch_start(self, run: Run) -> None:
        if self.weight and self.means is None and run.epoch == 0:
            run.note(f"auxiliary: {run.config.model} has no auxiliary head; it trains plainly")

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        if self.means is None:
            return loss
        logits, run.model.auxiliary_logits = run.model.auxiliary_logits, None
        own = run.criterion(logits, run.targets)
        top1 = 100 * (logits.argmax(1) == labels_of(run.targets)).float().mean()
        self.means.add(torch.stack([own.detach(), top1]), len(logits))
        return (loss + own) / 2 if self.mode == "concat" else loss + self.weight * own


def count_head(run: Run) -> None:
    """Count the new head in the compression ratio, by which the decay of substituted layers is scaled."""
    report = run.substitution
    if report is None:
        return
    added = sum(p.numel() for p in run.model.auxiliary_head.parameters())
    run.substitution = replace(report, before=report.before + added, after=report.after + added)
    if report.spec.options.decay == "scaled":
        for layer in run.model.modules():
            if isinstance(layer, Substitute) and isinstance(layer, ScalesDecay):
                layer.decay_scale = dict.fromkeys(layer.decay_scale, run.substitution.rho)
