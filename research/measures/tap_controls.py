"""Controls of GraM: multipliers that keep something of the measured ones and lose the rest of their places.

Each makes another M (kh, kw) of mean 1 from one of mean 1, so that training differs in where steps are larger, not in
how large they are together.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Place = Literal["measured", "permuted", "radial", "gaussian"]
HALVINGS = 60  # of an interval of log widths: to the last bit of float64


def placed(multiplier: Tensor, place: Place, generator: torch.Generator | None = None) -> Tensor:
    """M (kh, kw) as ``place`` says; where a tap is undefined (nan), all of it stays as it is.

    - ``measured``: M itself.
    - ``permuted``: its values at taps drawn from ``generator`` (on the CPU): sizes stay, places are lost.
    - ``radial``: its mean over taps equally far from the centre: the distance stays, the direction is lost.
    - ``gaussian``: a Gaussian of the distance with the entropy of M / sum(M): of all that was measured, one number
      stays, how narrow M is.
    """
    if place == "measured" or not multiplier.isfinite().all():
        return multiplier
    if place == "permuted":
        order = torch.randperm(multiplier.numel(), generator=generator).to(multiplier.device)
        return multiplier.flatten()[order].view_as(multiplier)
    squares = squared_distances(*multiplier.shape).to(multiplier.device)
    if place == "radial":
        _, ring = squares.unique(return_inverse=True)
        same = (ring.flatten()[:, None] == ring.flatten()).to(multiplier.dtype)
        return (same @ multiplier.flatten() / same.sum(dim=1)).view_as(multiplier)
    return gaussian_of_entropy(squares, entropy(multiplier)).to(multiplier.dtype)


def squared_distances(kh: int, kw: int) -> Tensor:
    """Squared distance of every tap from the centre tap: float64 (kh, kw)."""
    rows, columns = (torch.arange(side, dtype=torch.float64) - (side - 1) // 2 for side in (kh, kw))
    return rows[:, None] ** 2 + columns**2


def entropy(multiplier: Tensor) -> Tensor:
    """Entropy of M / sum(M) in nats, float64 (); log(kh kw) where all taps are equal."""
    return torch.special.entr(multiplier.double() / multiplier.double().sum()).sum()


def gaussian_of_entropy(squares: Tensor, target: Tensor) -> Tensor:
    """exp(-squares / 2 s²), of mean 1, with the width s that gives it the entropy ``target``: float64 (kh, kw).

    Entropy rises with s, from 0 to that of equal taps.
    """
    low, high = torch.tensor([-5.0, 10.0], dtype=torch.float64, device=squares.device)  # log s
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        narrow = entropy(_gaussian(squares, middle)) < target
        low, high = torch.where(narrow, middle, low), torch.where(narrow, high, middle)
    found = _gaussian(squares, high)
    return found / found.mean()


def _gaussian(squares: Tensor, log_width: Tensor) -> Tensor:
    return torch.exp(-squares / 2 * torch.exp(-2 * log_width))
