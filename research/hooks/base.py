"""The contract between the training loop and a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from research.config import Config
    from research.run import Run


class Hook:
    """A method plugged into training. Override what it needs; every event is a no-op otherwise.

    The constructor's signature is the hook's parameter list: names, types, defaults and ranges are read from it.

    The loop guarantees: hooks run in the order the user listed them; every event fires on every rank; ``grads`` and
    ``step_end`` fire once per optimizer step, also under gradient accumulation; ``run.generator(*names)`` is equal on
    all ranks and after a resume.

    A hook guarantees: all of its state is in ``state_dict`` (tensors, numbers, strings and containers of them, so that
    it loads with ``weights_only=True``), keyed by parameter or module name and equal on all ranks; neutral settings
    leave training bit-identical; no host synchronisation in ``loss``, ``grads`` and ``step_end``.
    """

    neutral: ClassVar[Mapping[str, Any]] = {}
    """Parameters with which the method has no effect on training; contract tests hold it to that."""

    exercise: ClassVar[Mapping[str, Any]] = {}
    """Parameters that make the method act within the dozen steps of a contract test."""

    exclusive: ClassVar[str] = ""
    """What the method decides alone, such as "masks": a run takes one method of each such kind."""

    def check(self, config: Config) -> None:
        """Refuse what cannot work on this machine, with a UsageError, before a run is made; reads files at most."""

    def build(self, run: Run) -> None:
        """Change the network itself, ``run.model``: masks, tied weights, layers put in place of others.

        Part of what the run's network is: also called, before weights are loaded, when they are evaluated later. It
        needs nothing but the run's device, config and random streams.
        """

    def setup(self, run: Run) -> None:
        """Once, before optimizer, compile and DDP exist, only when the run trains: criterion, teacher, averages."""

    def epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch; not repeated when a run resumes inside an epoch.

        ``run.train_loader.head(n)`` gives the first n batches that the epoch will train on.
        """

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        """Add loss terms; ``run.inputs``, ``run.logits`` and ``run.targets`` are those of this (micro-)batch."""
        return loss

    def grads(self, run: Run) -> None:
        """Every ``.grad`` is complete, unscaled, clipped and equal on all ranks; ``optimizer.step`` comes next."""

    def step_end(self, run: Run) -> None:
        """The weights have just moved: re-mask, reallocate, average."""

    def evaluated(self, run: Run, logits: Tensor, targets: Tensor) -> None:
        """A batch of this rank's share of the validation set went through ``run.model``, in inference mode.

        Every sample comes exactly once an epoch, over all ranks, in the evaluation between the last step and
        ``epoch_end``; other networks that a method evaluates, such as an average of the weights, do not come here.
        """

    def epoch_end(self, run: Run) -> None:
        """After evaluation: ``run.log(...)`` what the method knows."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
