"""EMA: an exponential moving average of the weights, evaluated beside them (Polyak & Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from research.checkpoints.checkpoint import save_weights
from research.hooks.base import Hook
from research.layers.masked import masked_weights
from research.measures.evaluate import evaluate
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


class Ema(Hook):
    """Average the weights over steps: average <- decay * average + (1 - decay) * weights; training is unchanged.

    BatchNorm statistics are averaged too; indices are the newest, and so are masks: after every step the average is 0
    outside the current mask, so that a dropped weight is forgotten and a grown one begins at 0.
    After every epoch the average, under the masks that the epoch ended with, is evaluated (rows ``val_ema``) and is
    written to ``ema.safetensors``. Wherever it stands in the list of methods, it is as sparse as the network; only
    after those that move weights in ``step_end`` it sees them as they were moved. A step whose update is skipped adds
    nothing to the average.
    """

    neutral = {}  # it only measures

    def __init__(self, decay: Annotated[float, Range(above=0, below=1), "weight of the past at each step"] = 0.9998):
        self.decay = decay

    def setup(self, run: Run) -> None:
        # what a loss scale skips only the device knows, and then counts there
        self._averages: Sequence[Tensor] = ()
        self.averaged = AveragedModel(run.model, device=run.device if run.config.amp == "fp16" else None)

    @torch.no_grad()
    def step_end(self, run: Run) -> None:
        if not self._averages:  # as soon as device and memory format are final; then both keep their tensors
            pairs = list(zip(tensors_of(self.averaged.module), tensors_of(run.model), strict=True))
            self._averages, self._weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
            self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        shares = self._count(run.skipped)
        if isinstance(shares, Tensor):
            shares = [shares.to(average.dtype) for average in self._averages]
        torch._foreach_lerp_(self._averages, self._weights, shares)
        for own, new in self._copied:  # masks, counts, indices: an average would be rounded to another one
            own.copy_(new)
        for weight, mask in self._masked:
            weight.mul_(mask)

    def _count(self, skipped: Tensor | None) -> float | Tensor:
        """Count a step; the share of the current weights in the average: all of it at first, nothing in a skipped step.

        A tensor () where ``skipped`` is one, so that nothing waits for the device.
        """
        steps = self.averaged.n_averaged
        if skipped is None:
            share = 1 - self.decay if steps else 1.0
            steps += 1
        else:
            share = torch.where(steps > 0, 1 - self.decay, 1.0) * (1 - skipped)
            steps += 1 - skipped.long()
        return share

    @cached_property
    def _masked(self) -> list[tuple[Tensor, Tensor]]:
        """The sparse weights of the average and their masks, shaped to be multiplied."""
        return [(tensor.weight.detach(), tensor.broadcast) for tensor in masked_weights(self.averaged.module)]

    @torch.no_grad()
    def follow_masks(self, run: Run) -> None:
        """Apply the current masks: a method later in the list may have changed them since the last step."""
        for own, current in zip(masked_weights(self.averaged.module), masked_weights(run.model), strict=True):
            own.mask.copy_(current.mask)
        for weight, mask in self._masked:
            weight.mul_(mask)

    def epoch_end(self, run: Run) -> None:
        self.follow_masks(run)
        run.log("val_ema", **evaluate(run, self.averaged.module))
        if run.rank == 0:
            save_weights(self.averaged.module, run.paths.average)

    def state_dict(self) -> dict[str, Any]:
        return self.averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averaged.load_state_dict(state)


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
