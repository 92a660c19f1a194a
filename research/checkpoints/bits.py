"""Booleans in files: a bit each, where torch writes a byte."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

KEYS = {"bits", "shape", "order"}
PART = 1 << 16  # elements that are packed at once, a multiple of 8


def to_bits(flags: Tensor, bit: int | None = None) -> dict[str, Any]:
    """Which elements of ``flags`` (bool or uint8, any shape) are not 0, or have ``bit`` set, as files have it.

    Eight a byte, as they lie in memory: with the dimensions in this order, and the shape that they then have.
    """
    order = sorted(range(flags.ndim), key=flags.stride, reverse=True)  # channels_last lies otherwise
    laid = flags.permute(order)
    return {"bits": _eight_a_byte(laid.flatten(), bit), "shape": list(laid.shape), "order": order}


def packed(state: Any) -> Any:
    """``state``, dicts, lists and tuples of anything, with the bits of its boolean tensors in their place."""
    if isinstance(state, Tensor):
        return to_bits(state) if state.dtype == torch.bool else state
    return _in_all(packed, state)


def unpacked(state: Any) -> Any:
    """``state`` with boolean tensors in the place of bits, on the device where these are."""
    if isinstance(state, dict) and state.keys() == KEYS:
        bits, shape = state["bits"], state["shape"]
        flags = np.unpackbits(bits.cpu().numpy(), count=math.prod(shape))
        laid = torch.from_numpy(flags).view(torch.bool).reshape(shape)
        return laid.permute(np.argsort(state["order"]).tolist()).to(bits.device)
    return _in_all(unpacked, state)


def _eight_a_byte(flags: Tensor, bit: int | None) -> Tensor:
    """Bits (N,) as uint8 (N / 8,), the first one highest as in NumPy, on the same device: a GPU is not waited for.

    A part after the other: whole copies between the small results would leave holes as large as they are in the heap.
    """
    if flags.device.type == "cpu":
        values, bits = flags.numpy(), np.empty(-(-len(flags) // 8), np.uint8)
        for start in range(0, len(values), PART):
            part = values[start : start + PART]
            bits[start // 8 : (start + PART) // 8] = np.packbits(part if bit is None else part & np.uint8(bit))
        return torch.from_numpy(bits)
    flags = (flags if bit is None else flags & bit) != 0
    eights = functional.pad(flags.byte(), (0, -len(flags) % 8)).view(-1, 8)
    return (eights << torch.arange(7, -1, -1, dtype=torch.uint8, device=flags.device)).sum(1, dtype=torch.uint8)


def _in_all(change: Callable[[Any], Any], state: Any) -> Any:
    if isinstance(state, dict):
        changed = copy.copy(state)  # of a network's state with the versions of its modules
        changed.update({key: change(value) for key, value in state.items()})
        return changed
    return type(state)(map(change, state)) if type(state) in (list, tuple) else state
