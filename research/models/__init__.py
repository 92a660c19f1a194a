"""Networks by name, one architecture a file.

Every constructor has the signature ``(num_classes=…, input_shape=…, /, *, own arguments)``. The first two come from the
data set; their defaults are those of the one that the network is known for. The own arguments are what a user may give
as ``model_args``, checked from their annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from research.errors import UsageError, nearest
from research.models.cifar_dense import dense_depth, regular_dense
from research.models.cifar_resnet import cifar_resnet
from research.models.cifar_vgg import cifar_vgg
from research.models.darts import darts, darts_imagenet
from research.models.dct_cnn import dct_cnn
from research.models.dense_mlp import dense_mlp
from research.models.dry_run import FAILURES, failure
from research.models.imagenet import mobilenet_v2, resnet, resnet18_wobn, seresnet
from research.models.libraries import LIBRARIES
from research.models.mlp import mnist_mlp
from research.models.mobilenet_v1 import mobilenet_v1
from research.models.wrn import wrn
from research.parameters.signatures import check_arguments

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mnist_mlp": mnist_mlp,
    "dense_mlp": dense_mlp,
    # small images; every wrn-<depth>-<width> is understood
    "resnet8": cifar_resnet(8),
    "resnet20": cifar_resnet(20),
    "resnet32": cifar_resnet(32),
    "resnet44": cifar_resnet(44),
    "resnet56": cifar_resnet(56),
    "resnet110": cifar_resnet(110),
    "wrn-28-10": wrn("wrn-28-10"),
    "dct_cnn": dct_cnn,
    "darts": darts,
    "cifar_vgg11": cifar_vgg("A"),
    "cifar_vgg16": cifar_vgg("D"),
    "regular_dense": regular_dense,
    "dense_depth": dense_depth,
    # ImageNet; further ones as torchvision:NAME and timm:NAME
    "resnet18": resnet("resnet18"),
    "resnet34": resnet("resnet34"),
    "resnet50": resnet("resnet50"),
    "resnet101": resnet("resnet101"),
    "resnet152": resnet("resnet152"),
    "resnext50_32x4d": resnet("resnext50_32x4d"),
    "resnext101_32x8d": resnet("resnext101_32x8d"),
    "wide_resnet50_2": resnet("wide_resnet50_2"),
    "wide_resnet101_2": resnet("wide_resnet101_2"),
    "resnet18_wobn": resnet18_wobn,
    "seresnet18": seresnet("seresnet18"),
    "seresnet50": seresnet("seresnet50"),
    "seresnet101": seresnet("seresnet101"),
    "darts_imagenet": darts_imagenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
}
ALIASES = {"mobilenetv2": "mobilenet_v2"}  # names in published commands


def model_names() -> list[str]:
    """The names in ``MODELS``; ``wrn-<depth>-<width>``, ``torchvision:NAME`` and ``timm:NAME`` work as well."""
    return list(MODELS)


def is_model(name: str) -> bool:
    """Whether this package itself makes a network of this name."""
    return name in MODELS or name in ALIASES or name.startswith("wrn-")


def create_model(
    name: str, num_classes: int | None = None, input_shape: tuple[int, ...] | None = None, **args: Any
) -> nn.Module:
    """The network ``name`` for inputs of ``input_shape`` (C, H, W), freshly initialised from torch's global generator.

    Without ``num_classes`` or ``input_shape``, those of the data it is known for: MNIST, CIFAR-10 or ImageNet.

    Raises:
        UsageError: unknown name, or arguments that this network does not take.
    """
    construct, values, problems = _resolve(name, args)
    if problems:
        raise UsageError("\n".join(problems))
    classes, shape = _known_for(construct)
    try:
        return construct(num_classes or classes, tuple(input_shape or shape), **values)
    except FAILURES as error:
        raise UsageError(_cannot_build(name, args, error)) from error


def known_for(name: str) -> tuple[int, tuple[int, ...]]:
    """Classes and input shape (C, H, W) of the data that the network ``name`` is known for."""
    construct, _, problems = _resolve(name, {})
    if problems:
        raise UsageError("\n".join(problems))
    return _known_for(construct)


def check_model(name: str, args: Mapping[str, Any], input_shape: tuple[int, ...] | None = None) -> list[str]:
    """What is wrong with a network's name and arguments, one line each; nothing is allocated.

    With ``input_shape`` (C, H, W), also whether one such input passes through, tried with shapes alone.
    """
    construct, values, problems = _resolve(name, args)
    library = ":" in name
    if problems or (input_shape is None and not (library and args)):
        return problems
    reason = failure(construct, values, input_shape and tuple(input_shape))
    if reason is None:
        return []
    if input_shape is None:
        return [_cannot_build(name, args, reason)]
    return [f"model={name!r}: cannot take inputs of shape {tuple(input_shape)}: {reason}"]


def model_arguments(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """All own arguments of the network ``name``, as its constructor gets them."""
    return _resolve(name, args)[1]


def _resolve(name: str, args: Mapping[str, Any]) -> tuple[Callable[..., nn.Module], dict[str, Any], list[str]]:
    """The constructor, its own arguments with defaults, and one line for each problem."""
    library, _, inner = name.partition(":")
    try:
        if library in LIBRARIES and inner:
            return LIBRARIES[library](inner), dict(args), []
        construct = MODELS.get(ALIASES.get(name, name)) or wrn(name)
        if construct is None:
            raise UsageError(f"unknown model {name!r}{nearest(name, MODELS, listed_by='research models')}")
    except UsageError as error:
        return nn.Identity, {}, [str(error)]
    return construct, *check_arguments("model_args.", construct, args)


def _known_for(construct: Callable[..., nn.Module]) -> tuple[int, tuple[int, ...]]:
    classes, shape = [p.default for p in signature(construct).parameters.values()][:2]
    return classes, shape


def _cannot_build(name: str, args: Mapping[str, Any], reason: object) -> str:
    return f"model={name!r}: cannot be built with model_args={dict(args)}: {reason}"
