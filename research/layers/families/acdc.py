"""ACDC: a matrix as a product of diagonals and cosine transforms (Moczulski, Denil, Appleyard & de Freitas 2016).

Legend: n rows and columns of the square matrix K; A, D (L, n) the diagonals of its L factors; Q the orthonormal cosine
matrix; P a permutation inside the factors, R one between them, both as indices.

    K = F_1 R F_2 R ... F_L R,   F_l = diag(A_l) Q P diag(D_l) Q^T

The paper's transforms C = Q diag(s) and C^-1 give the same factors: as P keeps position 0, s and 1 / s cancel. So each
factor with diagonals of ones is orthogonal, and K near them is nearly so.
"""

from __future__ import annotations

import functools
import math
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.nn import functional as F

from research.layers.base import Geometry, Init, Legacy, Pair, SeparableSubstitute, area
from research.layers.families.cached import KeepsKernel, cached_in_eval
from research.layers.families.cosine import Orthogonal, PermutedDCT, dct_matrix, riffle
from research.parameters.signatures import Range

FFT_FROM = 160  # rows: from here FFTs are faster than products of matrices, by tests/benchmarks/layers.py on a CPU


def acdc(x: Tensor, a: Tensor, d: Tensor, permutation: Tensor | None = None) -> Tensor:
    """One factor, applied to the rows of ``x``: x diag(a) Q P diag(d) Q^T.

    Args:
        x: (..., g m). With g > 1 the transforms act within each of g blocks, the diagonals on all.
        a, d: (g m,).
        permutation: P, of m positions, such as ``riffle(m)``; ``None``, the original form, keeps their order.
    """
    m = x.shape[-1] if permutation is None else len(permutation)
    q = dct_matrix(m, x.dtype, x.device)
    spectrum = (x * a).unflatten(-1, (-1, m)) @ (q if permutation is None else q[:, permutation])
    return ((spectrum.flatten(-2) * d).unflatten(-1, (-1, m)) @ q.T).flatten(-2)


def stack(A: Tensor, D: Tensor, within: Tensor | None, between: Tensor) -> Tensor:
    """K (n, n) of the diagonals A and D (L, n); P is ``within`` (``None`` keeps the order) and R is ``between``.

    Keeps 3 L n^2 numbers for the gradient; 2 L n^2 by FFT.
    """
    return (stack_by_products if A.shape[1] < FFT_FROM else stack_by_fft)(A, D, within, between)


def stack_by_products(A: Tensor, D: Tensor, within: Tensor | None, between: Tensor) -> Tensor:
    """All factors with one product of matrices, permutations merged into its constants; then the chain of products.

    A tree of batched products has fewer steps and takes up to 1.6 times as long: it splits and joins what it pairs.
    """
    q = dct_matrix(A.shape[1], A.dtype, A.device)
    left = q if within is None else q.index_select(1, within)
    right = q.T.index_select(1, between)
    factors = (left * D[:, None]) @ right * A[:, :, None]  # (L, n, n)
    return functools.reduce(torch.mm, factors.unbind())


def stack_by_fft(A: Tensor, D: Tensor, within: Tensor | None, between: Tensor) -> Tensor:
    """Factor by factor on all rows at once, n^2 log n operations for each."""
    inner, outer = PermutedDCT(A, after=within), PermutedDCT(A, before=between.argsort())
    K = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
    for a, d in zip(A.unbind(), D.unbind(), strict=True):
        K = Orthogonal.apply(K * a, inner, inner.inverse)
        K = Orthogonal.apply(K * d, outer.inverse, outer)
    return K


class ACDC(KeepsKernel, SeparableSubstitute):
    """A depthwise k x k convolution, then a 1x1 convolution whose square matrix K is a product of ACDC factors.

    Expanding, the input's channels are repeated until they fill n, a multiple of the output's channels; contracting,
    each ``in / out`` adjacent rows of K are summed. Both are linear, so they are done to K, not to the image.

    As published, "L layers" are L - 1 factors (the code drops the last one), and every published size counts so; the
    same is meant here.
    """

    log_names = {
        "ACDC": "acdc:12",
        r"ACDC_(\d+)": "acdc:{0}",
        "OriginalACDC": "acdc:12,inner=none",
        r"OriginalACDC_(\d+)": "acdc:{0},inner=none",
    }
    compressed = ("A", "D")
    settings = (2, 128)

    def __init__(
        self,
        geometry: Geometry,
        /,
        *,
        layers: Annotated[int, Range(least=2), "L of the name ACDC_L, which stands for L - 1 factors"] = 12,
        inner: Annotated[Literal["riffle", "none"], "permutation inside a factor; none is the paper's form"] = "riffle",
        outer: Annotated[Literal["riffle", "random"], "permutation between factors; random is drawn once"] = "riffle",
        init: Init = "variance",
    ):
        super().__init__(geometry, {"layers": layers, "inner": inner, "outer": outer})
        self.padded, n = _width(geometry.c_in, geometry.c_out)
        self.A = nn.Parameter(torch.empty(layers - 1, n))
        self.D = nn.Parameter(torch.empty(layers - 1, n))
        self.register_buffer("permutation", torch.randperm(n) if outer == "random" else None)
        self.initialise(init)

    @classmethod
    def unsupported(cls, geometry: Geometry, **own: Any) -> str | None:
        if geometry.c_in > geometry.c_out and geometry.c_in % geometry.c_out:
            return f"{geometry.c_in} input channels are not a multiple of {geometry.c_out} output channels"
        return super().unsupported(geometry, **own)

    @classmethod
    def count_matrix(cls, c_in: int, c_out: int, *, layers: int = 12, **own: Any) -> int:
        return 2 * (layers - 1) * max(c_in, c_out)

    @classmethod
    def matrix_mult_adds(
        cls, c_in: int, c_out: int, legacy: Legacy = frozenset(), *, layers: int = 12, **own: Any
    ) -> float:
        """Multiply-adds of the factors, applied one by one with fast transforms."""
        n = max(c_in, c_out)
        fast = (layers - 1) * (4 * n + 5 * n * math.log2(n))
        return min(fast, n * n) if "acdc-min" in legacy else fast

    @classmethod
    def count_mult_adds(cls, geometry: Geometry, size: Pair, legacy: Legacy = frozenset(), **own: Any) -> float:
        counted = super().count_mult_adds(geometry, size, legacy, **own)
        if geometry.taps == 1 or not legacy & {"acdc", "acdc-min"}:
            return counted
        extra = area(size) - area(geometry.output_size(size))
        return counted + extra * cls.matrix_mult_adds(geometry.c_in, geometry.c_out, legacy, **own)

    @cached_in_eval
    def matrix(self) -> Tensor:
        riffled = riffle(self.A.shape[1], self.A.device)
        within = riffled if self.arguments["inner"] == "riffle" else None
        device = self.A.device.type
        rounds = is_autocast_available(device) and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if rounds else nullcontext():  # errors would grow with every factor
            K = stack(self.A, self.D, within, riffled if self.permutation is None else self.permutation)
        if len(K) != self.geometry.c_out:
            K = K.unflatten(0, (self.geometry.c_out, -1)).sum(1)
        for width in (self.padded, self.geometry.c_in):
            if K.shape[1] != width:  # inputs repeat with this period
                K = F.pad(K, (0, -K.shape[1] % width)).unflatten(1, (-1, width)).sum(1)
        return K

    def initialise(self, init: str) -> None:
        """Diagonals around one, so that K is nearly orthogonal; with ``variance`` the first takes the layer's gain."""
        nn.init.normal_(self.A, 1, 0.01)
        nn.init.normal_(self.D, 1, 0.01)
        self.initialise_depthwise(init)
        if init == "variance":
            with torch.no_grad():
                c_in, c_out = self.geometry.c_in, self.geometry.c_out
                self.A[0] *= (2 * min(1, c_in / c_out)) ** 0.5


def _width(c_in: int, c_out: int) -> tuple[int, int]:
    """Channels after padding, the smallest number >= ``c_in`` that divides ``c_out``, and rows of K."""
    padded = next((n for n in range(c_in, c_out + 1) if c_out % n == 0), c_in)
    return padded, max(c_in, c_out)
