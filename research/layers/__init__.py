"""What replaces a convolution, one family a file. A new family adds its line here and nothing else."""

from research.layers.base import Geometry, SeparableSubstitute, Substitute
from research.layers.grouped import Separable

LAYERS: dict[str, type[Substitute]] = {
    "sep": Separable,
}

__all__ = ["LAYERS", "Geometry", "SeparableSubstitute", "Substitute"]
