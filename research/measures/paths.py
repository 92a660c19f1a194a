"""What the masks of an MLP connect: units that lie on a path from an input to an output, and the number of such paths.

Masks are bool, (out, in), in the order in which the network applies them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def living(masks: Sequence[Tensor], inputs: Tensor | None = None) -> list[Tensor]:
    """Whether each unit behind each mask lives (bool, a vector a mask): active weights lead to it from an input, and
    from it to an output.

    ``inputs`` (bool) are those that count as such: all, or those that are not always 0 in the data.
    """
    reached = []
    reach = torch.ones_like(masks[0][0]) if inputs is None else inputs
    for mask in masks:
        reach = (mask & reach).any(1)
        reached.append(reach)
    lead = [torch.ones_like(reached[-1])]
    for mask in reversed(masks[1:]):
        lead.append((mask & lead[-1][:, None]).any(0))
    return [there & on for there, on in zip(reached, reversed(lead), strict=True)]


def paths(masks: Sequence[Tensor], inputs: Tensor | None = None) -> Tensor:
    """The number of paths of active weights from the ``inputs``, as above, to each output (float64)."""
    count = torch.ones_like(masks[0][0], dtype=torch.float64) if inputs is None else inputs.double()
    for mask in masks:
        count = mask.double() @ count
    return count
