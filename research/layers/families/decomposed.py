"""Convolutions whose 1x1 matrix is a decomposed tensor of three axes, after a dense depthwise convolution.

The legend and the mathematics are those of :mod:`research.layers.families.tensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from research.layers.base import Geometry, Init, SeparableSubstitute
from research.layers.families import tensors
from research.layers.families.cached import KeepsKernel, cached_in_eval
from research.layers.families.tensors import Three
from research.parameters.signatures import Range

Rank = Annotated[float, Range(above=0, most=1), "ranks of the decomposition, as a part of the largest"]
Shapes = dict[str, tuple[int, ...]]


class Decomposed(KeepsKernel, SeparableSubstitute):
    """What the three share. A family says which tensors it keeps, and how they make and are made of the whole."""

    settings = (1e-6, 1)

    def __init__(self, geometry: Geometry, arguments: dict[str, Any], init: str):
        super().__init__(geometry, arguments)
        self.sides = tensors.sides(geometry.c_in * geometry.c_out)
        shapes = self.shapes(self.sides, **arguments)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.compressed = self.free = tuple(shapes)
        self.initialise(init)

    @classmethod
    def shapes(cls, d: Three, **own: Any) -> Shapes:
        """Names and shapes of the parameters that stand for a tensor of sides ``d``."""
        raise NotImplementedError

    def compose(self, *parts: Tensor) -> Tensor:
        """The tensor (d1, d2, d3) of the parameters, in the order of :meth:`shapes`."""
        raise NotImplementedError

    def decompose(self, x: Tensor) -> Sequence[Tensor]:
        """The parameters of a tensor near ``x`` (d1, d2, d3)."""
        raise NotImplementedError

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int, **own: Any) -> int:
        return sum(prod(shape) for shape in cls.shapes(tensors.sides(c_in * c_out), **own).values())

    @cached_in_eval
    def matrix(self) -> Tensor:
        parts = [getattr(self, name) for name in self.compressed]
        return self.compose(*parts).view(self.geometry.c_out, self.geometry.c_in)

    @torch.no_grad()
    def matrix_from_dense(self, matrix: Tensor) -> None:
        for name, part in zip(self.compressed, self.decompose(matrix.reshape(self.sides)), strict=True):
            getattr(self, name).copy_(part)

    @torch.no_grad()
    def initialise(self, init: str) -> None:
        """Decompose a random dense matrix: as PyTorch starts it, or with ``variance`` 2 / out, its norm kept."""
        c_in, c_out = self.geometry.c_in, self.geometry.c_out
        first = getattr(self, self.compressed[0])
        dense = torch.zeros(c_out, c_in, dtype=first.dtype, device=first.device)  # finite in a dry run without draws
        if init == "variance":
            self.matrix_from_dense(nn.init.normal_(dense, std=(2 / c_out) ** 0.5))
            first *= (2 * c_in) ** 0.5 / self.matrix().norm()
        else:
            self.matrix_from_dense(nn.init.uniform_(dense, -(c_in**-0.5), c_in**-0.5))
        self.initialise_depthwise(init)


class TensorTrain(Decomposed):
    """G1 G2 G3 (Oseledets 2011; Novikov et al., "Tensorizing Neural Networks", 2015)."""

    log_names = {r"TensorTrain_([\d.e-]+)": "tt:{0}"}

    def __init__(self, geometry: Geometry, /, *, rank: Rank = 0.5, init: Init = "variance"):
        super().__init__(geometry, {"rank": rank}, init)

    @classmethod
    def shapes(cls, d: Three, *, rank: float = 0.5) -> Shapes:
        r1, r2 = tensors.tt_ranks(d, rank)
        return {"core1": (d[0], r1), "core2": (r1, d[1], r2), "core3": (r2, d[2])}

    def compose(self, *cores: Tensor) -> Tensor:
        return tensors.tt_product(cores)

    def decompose(self, x: Tensor) -> Sequence[Tensor]:
        return tensors.tt_svd(x, (self.core1.shape[1], self.core3.shape[0]))


class Tucker(Decomposed):
    """A core times a factor along each axis (Tucker 1966).

    ``core=train`` keeps the core as a tensor train of full rank, as the published code does and every published size
    counts; ``core=dense`` keeps its t1 t2 t3 numbers: the same tensors with fewer parameters, so the better choice
    for new work.
    """

    log_names = {r"Tucker_([\d.e-]+)": "tucker:{0}"}

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        rank: Rank = 0.5,
        core: Annotated[Literal["train", "dense"], "the core: as published, or with fewest parameters"] = "train",
        init: Init = "variance",
    ):
        super().__init__(geometry, {"rank": rank, "core": core}, init)

    @classmethod
    def shapes(cls, d: Three, *, rank: float = 0.5, core: str = "train") -> Shapes:
        t, (r1, r2) = tensors.tucker_ranks(d, rank)
        factors = {f"u{i}": pair for i, pair in enumerate(zip(d, t, strict=True), 1)}
        if core == "dense":
            return {"core": t, **factors}
        return {"core1": (t[0], r1), "core2": (r1, t[1], r2), "core3": (r2, t[2]), **factors}

    def compose(self, *parts: Tensor) -> Tensor:
        *cores, u1, u2, u3 = parts
        return tensors.tucker_product(tensors.tt_product(cores) if len(cores) > 1 else cores[0], (u1, u2, u3))

    def decompose(self, x: Tensor) -> Sequence[Tensor]:
        t = tuple(u.shape[1] for u in (self.u1, self.u2, self.u3))
        if self.arguments["core"] == "dense":
            core, factors = tensors.hosvd(x, t)
            return [core, *factors]
        cores, factors = tensors.hosvd_train(x, t, (self.core1.shape[1], self.core3.shape[0]))
        return [*cores, *factors]


class CP(Decomposed):
    """A sum of rank-one terms (Carroll & Chang 1970; Harshman 1970; Lebedev et al. 2015 for convolutions)."""

    log_names = {r"CP_([\d.e-]+)": "cp:{0}"}

    def __init__(self, geometry: Geometry, /, *, rank: Rank = 0.5, init: Init = "variance"):
        super().__init__(geometry, {"rank": rank}, init)

    @classmethod
    def shapes(cls, d: Three, *, rank: float = 0.5) -> Shapes:
        terms = tensors.cp_rank(d, rank)
        return {f"u{i}": (side, terms) for i, side in enumerate(d, 1)}

    def compose(self, *factors: Tensor) -> Tensor:
        return tensors.cp_product(factors)

    def decompose(self, x: Tensor) -> Sequence[Tensor]:
        return tensors.cp_als(x, self.u1.shape[1])
