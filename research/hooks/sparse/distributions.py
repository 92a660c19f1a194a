"""How many units of each tensor are active at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence


def uniform_count(units: int, sparsity: float) -> int:
    """(1 - s) N units, rounded down; 0.1 repairs what floating point loses (Mostafa and Wang 2019, their code)."""
    return int((1 - sparsity) * units + 0.1)


def erk_density(
    shapes: Sequence[Sequence[int]], sparsity: float, power: float = 1.0, kernel: bool = True
) -> list[float]:
    """Erdos-Renyi(-kernel) densities: Evci et al., "Rigging the Lottery" (2020), appendix A, and their code.

    Proportional to (sum of dimensions / product of dimensions)^power, scaled such that the whole has ``sparsity``.
    Where that exceeds 1, the layers with the largest ratio are dense and the others share what is left.

    Args:
        shapes: of the weights, (out, in) or (out, in, kh, kw); leave out those of a sparsity of their own.
        kernel: False takes the dimensions (out, in) alone, as Mocanu et al. (2018) do.
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [(sum(d) / math.prod(d)) ** power for d in (shape if kernel else shape[:2] for shape in shapes)]
    zeros = [math.floor(sparsity * size) for size in sizes]
    layers = range(len(sizes))
    dense: set[int] = set()
    while len(dense) < len(sizes):
        free = [layer for layer in layers if layer not in dense]
        wanted = sum(sizes[layer] - zeros[layer] for layer in free) - sum(zeros[layer] for layer in dense)
        scale = wanted / sum(raw[layer] * sizes[layer] for layer in free)
        largest = max(raw[layer] for layer in free)
        if scale * largest <= 1:
            return [1.0 if layer in dense else scale * raw[layer] for layer in layers]
        dense |= {layer for layer in free if raw[layer] == largest}
    return [1.0] * len(sizes)


def count_of(density: float, units: int) -> int:
    """Active units at ``density``: N - floor((1 - density) N)."""
    return units - math.floor((1 - density) * units)
