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


def to_bits(flags: Tensor) -> dict[str, Any]:
    """Which elements of ``flags`` (bool or integer, any shape) are not 0, as files have it.

    Eight a byte, as they lie in memory: with the dimensions in this order, and the shape that they then have.
    """
    order = sorted(range(flags.ndim), key=flags.stride, reverse=True)  # channels_last lies otherwise
    laid = flags.permute(order)
    return {"bits": _eight_a_byte(laid.flatten() != 0), "shape": list(laid.shape), "order": order}


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


def _eight_a_byte(flags: Tensor) -> Tensor:
    """bool (N,) as uint8 (N / 8,), the first flag highest as in NumPy, on the same device: a GPU is not waited for."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.packbits(flags.numpy()))
    eights = functional.pad(flags.byte(), (0, -len(flags) % 8)).view(-1, 8)
    return (eights << torch.arange(7, -1, -1, dtype=torch.uint8, device=flags.device)).sum(1, dtype=torch.uint8)


def _in_all(change: Callable[[Any], Any], state: Any) -> Any:
    if isinstance(state, dict):
        changed = copy.copy(state)  # of a network's state with the versions of its modules
        changed.update({key: change(value) for key, value in state.items()})
        return changed
    return type(state)(map(change, state)) if type(state) in (list, tuple) else state
