"""A matrix as a tensor of three axes, decomposed: tensor train, Tucker and CP (Kolda & Bader 2009; Oseledets 2011).

The (out, in) matrix of a 1x1 convolution is read row by row as a tensor of nearly equal sides d1, d2, d3.
A scale h in (0, 1] sets every rank. Legend: r ranks, G cores, U factors of orthonormal columns.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Three = tuple[int, int, int]


@functools.cache
def sides(numel: int) -> Three:
    """d1, d2, d3 of a tensor of ``numel`` elements: divisors from the rounded cube root up, the rest last."""
    e = round(numel ** (1 / 3))
    if e**3 == numel:
        return e, e, e
    d1 = _divisor(numel, e)
    d2 = _divisor(numel // d1, e)
    return d1, d2, numel // d1 // d2


def _divisor(n: int, least: int) -> int:
    """The smallest divisor of n that is >= ``least``, or n itself where n is smaller."""
    return next((d for d in range(least, n) if n % d == 0), n)


def tt_ranks(d: Three, h: float) -> tuple[int, int]:
    """r1, r2 of the tensor train: h times the smaller side at each joint, not above what the tensor can have."""
    asked = [max(1, round(h * min(pair))) for pair in zip(d, d[1:], strict=False)]
    r2 = min(asked[1], d[0] * d[1], d[2])
    return min(asked[0], d[0], d[1] * r2), r2


def tucker_ranks(d: Three, h: float) -> tuple[Three, tuple[int, int]]:
    """t1, t2, t3 of the factors: h times each side; and R1, R2 of the core's tensor train.

    The core's train is exact, with the ranks that it has before the factors to its left are truncated. So R1 may
    exceed t1: up to d1 t1 + (d1 - t1) t2 R2 parameters more than a core of t1 t2 t3 has.
    """
    asked = [max(1, round(h * side)) for side in d]
    ranks = [1, min(d[0], d[1] * d[2]), min(d[0] * d[1], d[2]), 1]
    t = list(d)
    for i in (2, 1, 0):
        t[i] = min(asked[i], d[i], ranks[i] * ranks[i + 1])
        ranks[i] = min(ranks[i], t[i] * ranks[i + 1])
    return tuple(t), (ranks[1], ranks[2])


def cp_rank(d: Three, h: float) -> int:
    """Number of rank-one terms."""
    return max(1, round(h * min(d)))


# -- decomposition ------------------------------------------------------------------------------------------------


def tt_svd(x: Tensor, ranks: tuple[int, int]) -> list[Tensor]:
    """Cores (d1, r1), (r1, d2, r2), (r2, d3) of ``x`` by truncated SVDs from the last axis to the first.

    Within a factor sqrt(2) of the best train of these ranks (Oseledets 2011, corollary 2.4).
    """
    r1, r2 = ranks
    left, last = _truncated(x.flatten(0, 1), r2)
    first, middle = _truncated(left.reshape(x.shape[0], -1), r1)
    return [first, middle.unflatten(1, (-1, r2)), last]


def hosvd(x: Tensor, ranks: Three) -> tuple[Tensor, list[Tensor]]:
    """Core (t1, t2, t3) and factors (d, t) of ``x``: the sequentially truncated HOSVD, last axis first.

    Each factor takes the leading singular vectors of what those before it left (Vannieuwenhoven, Vandebril &
    Meerbergen 2012).
    """
    core, factors = x, []
    for axis in (2, 1, 0):
        unfolded = core.movedim(axis, -1)
        kept, vh = _truncated(unfolded.flatten(0, 1), ranks[axis])
        core = kept.unflatten(0, unfolded.shape[:2]).movedim(-1, axis)
        factors.insert(0, vh.T)
    return core, factors


def hosvd_train(x: Tensor, t: Three, ranks: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """:func:`hosvd` with the core as an exact train: cores (t1, R1), (R1, t2, R2), (R2, t3), and factors.

    The train is that of the core before truncation along the first axis, as :func:`tucker_ranks` counts it.
    """
    core, (u1, u2, u3) = hosvd(x, (len(x), *t[1:]))
    first, middle, last = tt_svd(core, ranks)
    return [first[: t[0]], middle, last], [u1[:, : t[0]], u2, u3]


def cp_als(x: Tensor, rank: int, sweeps: int = 50) -> list[Tensor]:
    """Factors (d, rank) of a sum of ``rank`` rank-one terms near ``x``, by alternating least squares from its HOSVD.

    Every step is the exact minimum over one factor (Kolda & Bader 2009, figure 3.3); computed in float64.
    """
    x64 = x.double()
    unfolded = [x64.movedim(axis, 0).flatten(1) for axis in range(3)]
    factors = [torch.linalg.svd(u, full_matrices=False).U[:, :rank] for u in unfolded]
    for _ in range(sweeps):
        for axis in range(3):
            b, c = (factors[i] for i in range(3) if i != axis)
            inverse = torch.linalg.pinv((b.T @ b) * (c.T @ c), hermitian=True)
            factors[axis] = unfolded[axis] @ khatri_rao(b, c) @ inverse
    return [factor.to(x) for factor in factors]


def _truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``U S`` and ``V^T`` of the best approximation of this rank; beyond the matrix's own, columns of zeros in U S."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=rank > min(matrix.shape))
    left = u[:, : len(s)] * s
    return F.pad(left[:, :rank], (0, max(0, rank - len(s)))), vh[:rank]


# -- contraction --------------------------------------------------------------------------------------------------


def tt_product(cores: Sequence[Tensor]) -> Tensor:
    """The tensor (d1, d2, d3) of a train: two products of matrices."""
    first, middle, last = cores
    left = first @ middle.flatten(1)  # (d1, d2 r2)
    return (left.reshape(-1, len(last)) @ last).view(len(first), -1, last.shape[1])


def tucker_product(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """The tensor (d1, d2, d3) of a core (t1, t2, t3) and factors (d, t): three products of matrices."""
    u1, u2, u3 = factors
    left = (u1 @ core.flatten(1)).unflatten(1, core.shape[1:])  # (d1, t2, t3)
    return u2 @ (left @ u3.T)


def khatri_rao(b: Tensor, c: Tensor) -> Tensor:
    """Every row of ``b`` (m, r) times every row of ``c`` (n, r): (m n, r)."""
    return (b[:, None] * c).flatten(0, 1)


def cp_product(factors: Sequence[Tensor]) -> Tensor:
    """The tensor (d1, d2, d3) of three factors (d, r): one product of matrices."""
    a, b, c = factors
    return (khatri_rao(a, b) @ c.T).view(len(a), len(b), len(c))
