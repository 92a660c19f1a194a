"""The orthonormal discrete cosine transform (type II), permuted, of the rows of a matrix: by matrix and by FFT.

Q is its matrix: dct(x) = x Q for a row x. The unnormalised transform is x C, with C = Q diag(s), s = (2 sqrt(n),
sqrt(2 n), ..., sqrt(2 n)). A permutation P is an index: (x P)[j] = x[P[j]].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def constant(make: Callable) -> Callable:
    """Make such a tensor once and keep it, fit for training even when it is first needed in an evaluation."""
    return functools.cache(torch.inference_mode(False)(make))


@constant
def dct_matrix(n: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Q (n, n), orthogonal: Q[i, j] = sqrt(2 / n) cos(pi j (2 i + 1) / (2 n)), and 1 / sqrt(n) in column 0.

    Shared by all who ask for it: not to be written to.
    """
    i = torch.arange(n, device=device)
    turns = (2 * i[:, None] + 1) * i % (4 * n)  # exact: a cosine of large angles is not
    q = math.sqrt(2 / n) * torch.cos(math.pi / (2 * n) * turns.double())
    q[:, 0] = math.sqrt(1 / n)
    return q.to(dtype)


@constant
def riffle(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The permutation that puts even positions first, then odd ones: 0 2 4 ... 1 3 5 ... Shared, as above."""
    i = torch.arange(n, device=device)
    return torch.cat([i[::2], i[1::2]])


class _Plan(NamedTuple):
    """Indices and factors that make a DCT of n values out of a real FFT of n values, and back."""

    order: Tensor  # (n,): where the FFT's input comes from
    restore: Tensor  # (n,): where the values come from in the inverse FFT's output
    twiddle: Tensor  # (n // 2 + 1,) complex
    untwiddle: Tensor  # (n // 2 + 1,) complex
    unfold: Tensor  # (n,): coefficient j in the spectrum, taken as real numbers
    fold: Tensor  # (n + 2 or n + 1,): the coefficient of each of those


@constant
def _plan(n: int, dtype: torch.dtype, device: torch.device) -> _Plan:
    """Makhoul (1980): even samples, then odd ones backwards, have the spectrum exp(i pi k / 2 n) (y[k] - i y[n - k]).

    Backwards in time, so that real and imaginary parts are coefficients k and n - k with no sign to change.
    """
    i = torch.arange(n, device=device)
    backwards = -i % n
    order = torch.cat([i[::2], i[1::2].flip(0)])[backwards]
    k = torch.arange(n // 2 + 1, device=device)
    phase = math.pi / (2 * n) * k.double()
    scale = torch.full_like(phase, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    twiddle = torch.polar(scale, phase)
    untwiddle = torch.polar(math.sqrt(n / 2) * torch.ones_like(phase), -phase)
    untwiddle[0] = math.sqrt(n) * complex(0.5, -0.5)  # coefficient 0 is both parts: y + i y becomes sqrt(n) y
    unfold = torch.where(i <= n // 2, 2 * i, 2 * (n - i) + 1)
    fold = torch.stack([k, (n - k) % n], 1).flatten()
    as_complex = dtype.to_complex()
    return _Plan(order, order.argsort(), twiddle.to(as_complex), untwiddle.to(as_complex), unfold, fold)


class PermutedDCT:
    """y = dct(x[before])[after] on the last axis by FFT, n log n operations a row, and its inverse (transpose).

    Permutations are merged into the two gathers that the FFT needs anyway. ``None`` leaves the order.
    """

    def __init__(self, like: Tensor, before: Tensor | None = None, after: Tensor | None = None):
        n = like.shape[-1]
        order, restore, self.twiddle, self.untwiddle, unfold, fold = _plan(n, like.dtype, like.device)
        self.order = order if before is None else before[order]
        self.restore = restore if before is None else restore[before.argsort()]
        self.unfold = unfold if after is None else unfold[after]
        self.fold = fold if after is None else after.argsort()[fold]

    def __call__(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x.index_select(-1, self.order)).mul_(self.twiddle)
        return torch.view_as_real(spectrum).flatten(-2).index_select(-1, self.unfold)

    def inverse(self, y: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(y.index_select(-1, self.fold).unflatten(-1, (-1, 2))).mul_(self.untwiddle)
        return torch.fft.irfft(spectrum, y.shape[-1]).index_select(-1, self.restore)


class Orthogonal(torch.autograd.Function):
    """``forth(x)`` of an orthogonal map, whose gradient goes ``back`` through its inverse: nothing is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.maps = back, forth
        return forth(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Orthogonal.apply(gradient, *ctx.maps), None, None


def dct(x: Tensor, norm: str | None = "ortho") -> Tensor:
    """DCT-II of the last axis; ``norm`` as in ``scipy.fft.dct``: "ortho", or ``None`` for x C."""
    return PermutedDCT(x)(x) if norm == "ortho" else PermutedDCT(x)(x) * _scale(x)


def idct(y: Tensor, norm: str | None = "ortho") -> Tensor:
    """The inverse of :func:`dct` with the same ``norm``."""
    return PermutedDCT(y).inverse(y if norm == "ortho" else y / _scale(y))


def _scale(x: Tensor) -> Tensor:
    s = x.new_full(x.shape[-1:], math.sqrt(2 * x.shape[-1]))
    s[0] *= math.sqrt(2)
    return s
