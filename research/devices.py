"""Between the host and a GPU: what is brought here and sent there, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

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


def use_tf32(by: Literal["nothing", "convolutions", "everything"]) -> None:
    """What may round its float32 factors to TF32 (10 bits of mantissa) on a GPU that has it, from now on."""
    torch.backends.cudnn.allow_tf32 = by != "nothing"
    torch.set_float32_matmul_precision("high" if by == "everything" else "highest")


@contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """A context in which float32 is float32: without autocast and without TF32, whatever else computes with."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    use_tf32("nothing")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
