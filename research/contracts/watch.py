"""What a method asks of tensors on the host: on a GPU, the host waits there until all that it was told is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
ASKING = {  # operators that must know values
    aten._local_scalar_dense.default: "a number (item, float, bool)",
    aten.nonzero.default: "nonzero",
    aten.equal.default: "equal",
    aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.linalg_eigvalsh.default: "eigvalsh",
    aten._linalg_eigh.default: "eigh",
    aten._linalg_svd.default: "svd",
}
COPYING = {Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.cpu: "cpu"}
"""What copies a tensor to the host, which no operator tells on a CPU."""


class Operators(TorchDispatchMode):
    """Calls ``told`` for every operator that must know values."""

    def __init__(self, told: Callable[[str], None]):
        super().__init__()
        self.told = told

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASKING:
            self.told(ASKING[func])
        elif func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.told("an index of booleans")
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Calls ``told`` for every copy to the host."""

    def __init__(self, told: Callable[[str], None]):
        super().__init__()
        self.told = told

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPYING:
            self.told(COPYING[func])
        return func(*args, **(kwargs or {}))


def watched(call: Callable[[], Any], file: str) -> tuple[Any, list[str]]:
    """What ``call`` returns, and what it asked of tensors on the host, with the line in ``file`` that did."""
    asked: list[str] = []

    def told(what: str) -> None:
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename != file:
            frame = frame.f_back
        asked.append(f"{f'line {frame.f_lineno}' if frame else 'a function that it calls'} asks for {what}")

    with Operators(told), Copies(told):
        return call(), asked
