"""The contract between the training loop and a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from research.parameters.signatures import parameters_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from research.config import Config
    from research.runs.run import Run

Reasons = Mapping[str, str]
"""Parameters of a method -> why each of them changes nothing."""
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation per channel."""


@dataclass(frozen=True)
class Source:
    """What a method starts from, as a user named it: found before a run is made, loaded before the method is set up.

    ``place`` is the name or folder of a run, or a file of weights. What the method then finds in
    ``run.sources[self]``, by the name of its parameter, depends on what it ``wants``:

    =================== ==============================================================================================
    ``network``         a :class:`SourceNetwork`, rebuilt with its weights for the run's data, on its device;
                        ``place`` may also be ``torchvision:NAME`` or ``timm:NAME``, or empty for the run's own network
                        with its initial weights
    ``weights``         tensors by name: the best weights of a run, or those in a file
    ``newest weights``  tensors by name: those of a run's newest checkpoint, masks among them, or those in a file
    ``initial weights`` tensors by name: what the network of that run began with, drawn again from its seed
    =================== ==============================================================================================
    """

    place: str
    wants: Literal["network", "weights", "newest weights", "initial weights"]
    given: Mapping[str, Any] = field(default_factory=dict)  # parameters of the network that win over what is stored
    normalisation: Normalisation | None = None  # of a network's inputs, as it was trained; None = what is known of it


@dataclass(frozen=True)
class SourceNetwork:
    """A network that a method starts from, and its origin as a phrase for the user."""

    network: nn.Module
    origin: str


class Hook:
    """A method plugged into training. Override what it needs; every event is a no-op otherwise.

    The constructor's signature is the hook's parameter list: names, types, defaults and ranges are read from it. It is
    called to check parameters, so it must be cheap and have no effects.

    The loop guarantees: hooks run in the order the user listed them; every event fires on every rank; ``grads`` and
    ``step_end`` fire once per optimizer step, also under gradient accumulation; ``run.generator(*names)`` is equal on
    all ranks and after a resume.

    Under amp=fp16 the update of a step is skipped when a gradient is not finite. Its events fire all the same, and
    ``run.skipped``, a tensor on the device, tells in ``grads`` and ``step_end``: no weight moves, so what goes by
    updates (events, averages) takes such a step for none. ``bool(run.skipped)`` waits for the device; without a loss
    scale it is ``None``.

    A hook guarantees: all of its state is in ``state_dict`` (tensors, numbers, strings and containers of them, so that
    it loads with ``weights_only=True``), keyed by parameter or module name and equal on all ranks; neutral settings
    leave training bit-identical; no host synchronisation in ``loss``, ``grads`` and ``step_end``, but in the rare steps
    of an event.

    A hook may read everything of a run. It writes, beside its own state: ``run.model`` and ``run.substitution`` in
    ``build``; ``run.criterion`` in ``setup``; gradients in ``grads``; weights, buffers and their state in
    the optimizer in ``grads`` and ``step_end``; ``run.best_top1``, to let the best result count anew, in ``step_end``;
    rows and notes through ``run.log`` and ``run.note``; files of its own under ``run.paths``, on rank 0. Nothing else
    of a run is its to change.
    """

    neutral: ClassVar[Mapping[str, Any]] = {}
    """Parameters with which the method has no effect on training; contract tests hold it to that."""

    exercise: ClassVar[Mapping[str, Any]] = {}
    """Parameters that make the method act within the dozen steps of a contract test."""

    exclusive: ClassVar[str] = ""
    """What the method decides alone, such as "masks": a run takes one method of each such kind."""

    draws: ClassVar[bool] = False
    """Whether it draws from ``run.generator``, which ``mask_seed`` seeds."""

    def idle(self) -> Reasons:
        """Parameters without effect beside the method's others, with the reason; a user who gives one is refused."""
        return {}

    def initial_stream(self) -> str:
        """The random stream that the network's initial weights come from; empty for the one of every run."""
        return ""

    def check(self, config: Config) -> None:
        """Refuse what cannot work on this machine, with a UsageError, before a run is made; reads files at most."""

    def sources(self, config: Config) -> Mapping[str, Source]:
        """What the method starts from, by the name of its parameter; the run loads it, not the method."""
        return {}

    def build(self, run: Run) -> None:
        """Change the network itself, ``run.model``: masks, tied weights, layers put in place of others.

        Also called when weights are evaluated later, before they are loaded. It may use nothing but the run's device,
        config and random streams.
        """

    def check_network(self, run: Run) -> None:
        """Refuse the built network, with a UsageError, before the run is made; its weights have no values yet.

        ``run`` has only its config, ``model``, ``hooks``, ``epochs`` and ``steps_per_epoch`` here, as in ``idle_in``
        and ``never``, which are called at the same moment.
        """

    def idle_in(self, run: Run) -> Reasons:
        """Parameters without effect because of this run's network, optimizer or length; see :meth:`idle`."""
        return {}

    def never(self, run: Run) -> str:
        """Why it is certain that the method will do nothing in this run: a clause; empty where it may do something.

        The user gets a note, and the run goes on.
        """
        return ""

    def out_of_order(self, later: Mapping[str, Hook]) -> str:
        """What comes of it that the methods ``later`` are listed after this one: a clause; empty if nothing odd.

        The user gets a note, and the run goes on.
        """
        return ""

    def setup(self, run: Run) -> None:
        """Called once, before optimizer, compile and DDP exist, if the run trains: criterion, teacher, averages."""

    def epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch; not repeated when a run resumes inside an epoch.

        ``run.train_loader.head(n)`` gives the first n batches that the epoch will train on.
        """

    def loss(self, run: Run, loss: Tensor) -> Tensor:
        """Add loss terms; ``run.inputs``, ``run.logits`` and ``run.targets`` are those of this (micro-)batch.

        Targets are classes (B,), or distributions (B, classes) where images are mixed.
        """
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

    def undone(self, run: Run) -> str:
        """What the method was asked to do and never did in the run that now ends: a clause; empty if it acted.

        It becomes a note of the run. A method that is switched off, or only measures, returns an empty text.
        """
        return ""

    def close(self) -> None:
        """Release what garbage collection cannot, such as handles; called however training ends."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def refusals(name: str, hook: Hook, reasons: Reasons) -> list[str]:
    """A line for each parameter without effect that a user gave, that is, whose value differs from the default."""
    known = parameters_of(type(hook))
    given = {parameter: getattr(hook, parameter) for parameter in reasons if parameter in known}
    return [
        f"{name}.{parameter}={value!r}: has no effect: {reasons[parameter]}"
        for parameter, value in given.items()
        if value != known[parameter].default
    ]
