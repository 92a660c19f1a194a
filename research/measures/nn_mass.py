"""NN-Density and NN-Mass: Bhardwaj, Li and Marculescu, "How does topology influence gradient propagation and model
performance of deep networks with DenseNet-type skip connections?" (CVPR 2021, arXiv 1910.00780).

A cell is a stack of d layers of width w. Beside the w outputs of the layer before it, layer l may read any of the
c_l = w (l-1) outputs of layers 0 .. l-2, and reads t_l = min(tc, c_l) of them. The density of the cell is
rho = sum t_l / sum c_l, its mass m = rho w d; the mass of a network is the sum over its cells.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from research.errors import UsageError


@dataclass(frozen=True)
class Cell:
    """A cell of ``depth`` >= 3 layers of ``width`` neurons or channels, at most ``tc`` >= 0 links a layer."""

    width: int
    depth: int
    tc: int

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 3), ("tc", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be >= {least}")

    @property
    def candidates(self) -> tuple[int, ...]:
        """c_l of every layer: how many outputs it could link to."""
        return tuple(self.width * max(0, layer - 1) for layer in range(self.depth))

    @property
    def links(self) -> tuple[int, ...]:
        """t_l of every layer: how many it links to."""
        return tuple(min(self.tc, c) for c in self.candidates)

    @property
    def density(self) -> float:
        return sum(self.links) / sum(self.candidates)

    @property
    def mass(self) -> float:
        return self.density * self.width * self.depth

    def draw(self, rng: random.Random) -> list[list[int]]:
        """The links of every layer: t_l of range(c_l) without replacement, layers in order from the one generator."""
        return [rng.sample(range(c), t) for c, t in zip(self.candidates, self.links, strict=True)]
