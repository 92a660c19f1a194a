"""Between the host and a GPU: what is brought here and sent there, and who waits for whom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """``tensors`` (vectors of one dtype and any lengths) on the host: one transfer, for which it waits once.

    What lies on the host is returned as it is.
    """
    there = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if not there:
        return list(tensors)
    arrived = iter(torch.cat(there).cpu().split([len(tensor) for tensor in there]))
    return [tensor if tensor.device.type == "cpu" else next(arrived) for tensor in tensors]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. It leaves from pinned memory, so that the host does not wait for it to arrive."""
    if tensor.device == device or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
