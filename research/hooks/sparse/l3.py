"""L3: growth by topology alone, where many paths of three links already lead (no gradient, no chance but in ties).

Links of proteins are foretold by the paths of length three between them (Kovács et al., Nature Communications 10,
2019, equation 3); Zhang et al. (ICLR 2024, Cannistraci-Hebb training) grow the weights of sparse networks by such
scores. This is SET with that growth and the simplest of the scores: with A (out, in) the active weights between two
layers and k their number at a node,

    S[o, i] = sum over a, b of A[o, b] A[a, b] A[a, i] / sqrt(k_a k_b).

In kernels the nodes are channels, and A counts the active units between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from research.devices import fetch
from research.errors import UsageError
from research.hooks.sparse.base import RewiringHook
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.events import Event, set_count
from research.layers.masked import Masked, masked_weights
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


def l3_scores(links: Tensor) -> Tensor:
    """S (out, in) float64 of ``links`` (out, in), numbers of links between two nodes; see the head of this file."""
    links = links.double()
    outs, ins = (links.sum(axis).clamp(min=1).rsqrt() for axis in (1, 0))
    return torch.linalg.multi_dot([links * ins, links.T * outs, links])


def l3_step(tensors: Sequence[Masked], fraction: float, generator: torch.Generator | None = None) -> Event:
    """One event: every tensor loses its k = int(f M) + 1 smallest units and grows as many where S is largest.

    S is that of what is left; what has just died does not come back. Equal scores, such as 0, are drawn from.
    """
    counts = [min(set_count(tensor, fraction), tensor.units - len(tensor.active)) for tensor in tensors]
    killed = fetch([drop_smallest(tensor, count) for tensor, count in zip(tensors, counts, strict=True)])
    grown = []
    for tensor, dead in zip(tensors, killed, strict=True):
        candidates, left = tensor.inactive, tensor.flags.clone()
        left[dead] = False
        pairs = tensor.shaped(left).flatten(2).sum(2) if tensor.mask.ndim > 2 else tensor.shaped(left)
        scores = l3_scores(pairs)[(..., *[None] * (tensor.mask.ndim - 2))].expand(tensor.mask.shape)
        flat = tensor.flat(torch.empty_like(tensor.mask, dtype=scores.dtype, device="cpu").copy_(scores))
        drawn = candidates[torch.randperm(len(candidates), generator=generator)]
        best = torch.argsort(flat[drawn], descending=True, stable=True)[: len(dead)]
        grown.append(drawn[best].sort().values)
        tensor.change(dead, grown[-1])
    return Event(killed, grown)


@dataclass(eq=False)
class L3(RewiringHook):
    """Kill the smallest weights of each layer and regrow where most paths of three active weights lead (L3).

    Scores are computed on the host, in float64; an event reads masks and no gradient.
    """

    exercise = {"period": "2"}

    fraction: Annotated[float, Range(least=0, below=1), "share of a layer's active units that an event kills"] = 0.1

    def check_network(self, run: Run) -> None:
        flat = [tensor.name for tensor in masked_weights(run.model) if tensor.mask.ndim < 2]
        if flat:
            raise UsageError(f"l3: {flat[0]} is a row of values without two sides to link; leave it out with l3.keep=…")

    def rewire(self, run: Run) -> tuple[Event, dict[str, Any]]:
        return l3_step(self.tensors, self.fraction, run.generator("grow")), {}
