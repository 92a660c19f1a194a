"""Drop-path: whole branches of a network left out for single samples (Larsson et al. 2017; Huang et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def drop_path(x: Tensor, mask: Tensor, p: float | Tensor) -> Tensor:
    """``x`` (N, …) / (1 - p) where ``mask`` (N,), zero elsewhere: the expectation of ``x`` if P(mask) = 1 - p."""
    return torch.where(mask.bool().view(-1, *[1] * (x.ndim - 1)), x / (1 - p), 0)


class DropPath(nn.Module):
    """The end of a branch that may be dropped: the identity, unless it trains and ``p`` is set.

    ``p`` is the chance to be dropped, a scalar tensor, so that changing its value does not make ``torch.compile``
    compile anew; ``None`` switches it off. Every sample and every call draws for itself, from torch's global generator.
    """

    p: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.p is None or not self.training:
            return x
        return drop_path(x, torch.rand(len(x), device=x.device) >= self.p, self.p)
