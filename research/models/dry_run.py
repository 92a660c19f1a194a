"""Try a network on one input, without the cost of its initial values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

FAILURES = (TypeError, ValueError, RuntimeError, AssertionError, IndexError, KeyError, OSError)


class WithoutInitialValues(TorchFunctionMode):
    """Skips the drawing of random numbers: the weights do not matter here, and drawing them is most of the cost.

    (The meta device would not even compute, but its first operations import parts of torch for seconds.)
    """

    random = (torch.Tensor.normal_, torch.Tensor.uniform_)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] if func in self.random else func(*args, **(kwargs or {}))


def failure(
    construct: Callable[..., nn.Module], values: Mapping[str, Any], input_shape: tuple[int, ...] | None
) -> str | None:
    """Why the network cannot be built, or not take an input of this shape (C, H, W); ``None`` when nothing is wrong.

    Without a shape, the network is only built.
    """
    without_download = {name: value for name, value in values.items() if name not in ("weights", "pretrained")}
    try:
        with torch.no_grad(), WithoutInitialValues():
            model = construct(10, input_shape or (3, 224, 224), **without_download).eval()
            if input_shape:
                model(torch.empty(1, *input_shape))
    except FAILURES as error:
        return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return None
