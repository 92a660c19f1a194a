"""Scheduled drop-path: branches are dropped ever more often (Zoph et al. 2018; as DARTS trains, Liu et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch

from research.errors import UsageError
from research.hooks.base import Hook
from research.layers.drop_path import DropPath
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


class ScheduledDropPath(Hook):
    """Drop whole branches of the network, sample by sample, with a chance that rises linearly over the epochs.

    In epoch e of E the chance is p e / E, and what is kept is divided by 1 - p e / E. The branches are those that end
    in a ``research.layers.drop_path.DropPath``: every operation but the identity in cells of DARTS, and the residual
    branch of every block of CIFAR ResNets and wide ResNets (stochastic depth, with one chance for all blocks).
    """

    neutral = {"p": 0.0}

    def __init__(self, p: Annotated[float, Range(least=0, below=1), "chance to be dropped at the end"] = 0.2):
        self.p = p

    def p_at(self, epoch: int, epochs: int) -> float:
        """The chance in ``epoch`` of ``epochs``."""
        return self.p * epoch / epochs

    def check_network(self, run: Run) -> None:
        if self.p:
            self.ends(run)

    def never(self, run: Run) -> str:
        return "its chance begins at 0, and the run has one epoch" if self.p and run.epochs == 1 else ""

    def undone(self, run: Run) -> str:
        return f"no branch was ever dropped: {self.never(run)}" if self.never(run) else ""

    def setup(self, run: Run) -> None:
        self.current = torch.zeros((), device=run.device)
        for module in self.ends(run) if self.p else ():
            module.p = self.current

    def ends(self, run: Run) -> list[DropPath]:
        """The ends of all branches of the network.

        Raises:
            UsageError: it has none.
        """
        ends = [module for module in run.model.modules() if isinstance(module, DropPath)]
        if not ends:
            raise UsageError(
                f"drop_path: {run.config.model} has no branches to drop; networks of DARTS, CIFAR ResNets and wide "
                "ResNets have"
            )
        return ends

    def epoch_start(self, run: Run) -> None:
        self.current.fill_(self.p_at(run.epoch, run.epochs))

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.current}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.current.copy_(state["p"])
