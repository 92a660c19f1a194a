"""Keep a tensor that is made of parameters alone while they stay as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available

_kept: WeakKeyDictionary[nn.Module, tuple[list, Tensor]] = WeakKeyDictionary()
"""Kept outside the modules: copies and checkpoints of them hold no kernels."""


class KeepsKernel(nn.Module):
    """A module with one method that is :func:`cached_in_eval`; whenever its mode is set, the result is dropped.

    Fused optimizers leave no trace in a parameter, and compiled training never comes by the method itself.
    """

    def train(self, mode: bool = True) -> Self:
        _kept.pop(self, None)
        return super().train(mode)


def cached_in_eval(make: Callable[[KeepsKernel], Tensor]) -> Callable[[KeepsKernel], Tensor]:
    """Decorate a method without arguments: in eval mode without gradients, its result is cached.

    It is made anew when a parameter or buffer was assigned to, moved, loaded or replaced (its version counter, its
    address or its identity tells) or autocast has another type, and dropped at the first call in training mode.
    """

    @functools.wraps(make)
    def cached(module: KeepsKernel) -> Tensor:
        if torch.compiler.is_compiling():
            return make(module)
        if module.training or torch.is_grad_enabled():
            _kept.pop(module, None)
            return make(module)
        state = [(id(t), t.data_ptr(), t._version) for t in (*module.parameters(), *module.buffers())]
        state.append(autocast_type(next(module.parameters()).device.type))
        if module not in _kept or _kept[module][0] != state:
            _kept[module] = state, make(module)
        return _kept[module][1]

    return cached


def autocast_type(device: str) -> torch.dtype | None:
    """The type that autocast gives to products on ``device`` right now; ``None`` where it is off."""
    on = is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None
