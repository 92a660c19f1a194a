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
from research.hooks.sparse.base import RewiringHook
from research.hooks.sparse.criteria import drop_smallest
from research.hooks.sparse.events import Event, set_count
from research.layers.masked import Masked
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
        candidates = tensor.inactive
        drawn = candidates[torch.randperm(len(candidates), generator=generator)]
        best = torch.argsort(scores_of_units(tensor, dead)[drawn], descending=True, stable=True)[: len(dead)]
        grown.append(drawn[best].sort().values)
        tensor.change(dead, grown[-1])
    return Event(killed, grown)


def scores_of_units(tensor: Masked, dead: Tensor) -> Tensor:
    """S of the pair of nodes that each unit (N,) links, once the ``dead`` are gone; 0 in a row, which has no pairs."""
    scores, left = torch.zeros(tensor.units, dtype=torch.float64), tensor.flags.clone()
    left[dead] = False
    if tensor.mask.ndim > 1:
        units = tensor.shaped(torch.arange(tensor.units)).reshape(*tensor.mask.shape[:2], -1)  # (out, in, taps)
        scores[units] = l3_scores(left[units].sum(2))[..., None].expand(units.shape)
    return scores


@dataclass(eq=False)
class L3(RewiringHook):
    """Kill the smallest weights of each layer and regrow where most paths of three active weights lead (L3).

    Scores are computed on the host, in float64; an event reads masks and no gradient.
    """

    exercise = {"period": "2"}

    fraction: Annotated[float, Range(least=0, below=1), "share of a layer's active units that an event kills"] = 0.1

    def epoch_start(self, run: Run) -> None:
        super().epoch_start(run)
        if run.step == 0 and (rows := [tensor.name for tensor in self.tensors if tensor.mask.ndim < 2]):
            run.note(f"l3: {', '.join(rows)}: rows of values without two sides to link, which grow at random")

    def rewire(self, run: Run) -> tuple[Event, dict[str, Any]]:
        return l3_step(self.tensors, self.fraction, run.generator("grow")), {}
