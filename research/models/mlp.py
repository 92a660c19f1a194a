"""LeNet-300-100: the fully connected network of the sparse-training literature (LeCun et al. 1998)."""

from __future__ import annotations

import math
from typing import Annotated

from torch import nn

from research.parameters.signatures import Range


def mnist_mlp(
    num_classes: int = 10,
    input_shape: tuple[int, ...] = (1, 28, 28),
    /,
    *,
    hidden: Annotated[tuple[Annotated[int, Range(least=1)], ...], "widths of the hidden layers"] = (300, 100),
    batch_norm: Annotated[bool, "batch norm after every linear layer, the logits included, instead of biases"] = True,
) -> nn.Sequential:
    """784-300-100-10 on MNIST; other inputs are flattened too. ReLU after the hidden layers.

    Weights start uniform in +-1/sqrt(fan_in), biases at 0.
    """
    widths = [math.prod(input_shape), *hidden, num_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        linear = nn.Linear(n_in, n_out, bias=not batch_norm)
        nn.init.uniform_(linear.weight, -1 / math.sqrt(n_in), 1 / math.sqrt(n_in))
        layers.append(linear)
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_out))
        else:
            nn.init.zeros_(linear.bias)
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1])
