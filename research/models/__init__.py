"""Networks by name, one architecture a file.

Every constructor has the signature ``(num_classes, input_shape, /, *, own arguments)``. The first two come from the
data set; the own arguments are what a user may give as ``model_args``, checked from their annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from research.arguments import check_arguments
from research.errors import UsageError, nearest
from research.models.cifar_resnet import cifar_resnet
from research.models.mlp import mnist_mlp

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mnist_mlp": mnist_mlp,
    "resnet8": cifar_resnet(8),
    "resnet20": cifar_resnet(20),
    "resnet32": cifar_resnet(32),
    "resnet44": cifar_resnet(44),
    "resnet56": cifar_resnet(56),
    "resnet110": cifar_resnet(110),
}


def model_names() -> list[str]:
    return sorted(MODELS)


def create_model(
    name: str, num_classes: int = 10, input_shape: tuple[int, ...] = (3, 32, 32), **args: Any
) -> nn.Module:
    """The network ``name``, freshly initialised from torch's global generator.

    Raises:
        UsageError: with every problem that :func:`check_model` finds.
    """
    problems = check_model(name, args, input_shape)
    if problems:
        raise UsageError("\n".join(problems))
    construct = MODELS[name]
    values, _ = check_arguments("model_args.", construct, args)
    return construct(num_classes, input_shape, **values)


def check_model(name: str, args: Mapping[str, Any], input_shape: tuple[int, ...] | None = None) -> list[str]:
    """What is wrong with a network's name and arguments, and with this input for it; one line each. Builds nothing."""
    if name not in MODELS:
        return [f"unknown model {name!r}{nearest(name, MODELS)}"]
    _, problems = check_arguments("model_args.", MODELS[name], args)
    return problems
