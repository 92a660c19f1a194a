"""Keep a tensor that is made of parameters alone while they stay as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available


def cached_in_eval(make: Callable[[nn.Module], Tensor]) -> Callable[[nn.Module], Tensor]:
    """Decorate a method without arguments: in eval mode without gradients, its result is cached.

    It is made anew when a parameter or buffer was assigned to, moved, loaded or replaced (its version counter, its
    address or its identity tells) or autocast has another type, and dropped at the first call in training mode. Kept
    outside the module: copies and checkpoints of it hold no kernels.
    """
    kept: WeakKeyDictionary[nn.Module, tuple[list, Tensor]] = WeakKeyDictionary()

    @functools.wraps(make)
    def cached(module: nn.Module) -> Tensor:
        if torch.compiler.is_compiling():
            return make(module)
        if module.training or torch.is_grad_enabled():
            kept.pop(module, None)
            return make(module)
        state = [(id(t), t.data_ptr(), t._version) for t in (*module.parameters(), *module.buffers())]
        state.append(autocast_type(next(module.parameters()).device.type))
        if module not in kept or kept[module][0] != state:
            kept[module] = state, make(module)
        return kept[module][1]

    return cached


def autocast_type(device: str) -> torch.dtype | None:
    """The type that autocast gives to products on ``device`` right now; ``None`` where it is off."""
    on = is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None
