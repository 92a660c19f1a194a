"""What a network, or a layer in it, may say of itself: each protocol names members that some room looks for.

A network says only what it has to and needs no import for it: its class has the members, and ``isinstance`` sees them.
They stand at the bottom of the house because ``layers``, ``measures``, ``hooks`` and ``training`` ask, and ``models``
answers. Submodules are described in words, because ``isinstance`` does not find those of an ``nn.Module`` from Python
3.12 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from research.measures.nn_mass import Cell


@runtime_checkable
class KeepsLayers(Protocol):
    """Layers that substitutes leave as they are, by default; without it, the first convolution."""

    kept_layers: tuple[str, ...]  # patterns of module names, such as "*.shortcut"


@runtime_checkable
class ReplacesLinear(Protocol):
    """Linear layers that substitutes replace like 1x1 convolutions; without it, none."""

    replaced_linear: tuple[str, ...]  # patterns of module names


@runtime_checkable
class ScalesDecay(Protocol):
    """A layer whose parameters have a weight decay of their own: what substitutes are given."""

    decay_scale: dict[str, float]  # name of one of its own parameters -> factor on the run's weight_decay


@runtime_checkable
class NamesTaps(Protocol):
    """Where attention maps are taken, in a network whose stages are not called ``layer1`` or ``group1``."""

    def attention_taps(self) -> list[str]:
        """The names of the modules whose outputs are compared, in the order of the forward pass."""


@runtime_checkable
class TakesAuxiliaryHead(Protocol):
    """A second classifier in the middle of the network, which is not there until it is asked for."""

    auxiliary_logits: Tensor | None  # (N, classes), left by each forward pass in training once there is a head

    def add_auxiliary_head(self) -> None:
        """Make ``self.auxiliary_head``, a module with new weights."""


@runtime_checkable
class HasCells(Protocol):
    """The cells over which the network's NN-Mass is summed; without it, the mass is read from its modules."""

    cells: tuple[Cell, ...]
    nn_mass: float
    nn_density: float


@runtime_checkable
class WithStates(Protocol):
    """An MLP that shows what its layers read and put out, for LDI.

    Its linear layers are ``layers``, an ``nn.ModuleList``; the activation module between them is ``act``.
    """

    def states(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What every layer reads, and what it puts out before activation, for inputs (N, ...)."""
