"""ImageNet networks of torchvision and timm, as published: topology, initialisation and state_dict keys are theirs.

Stem 7x7/2 and max pooling 3x3/2; bottlenecks carry their stride on the 3x3 convolution. Convolutions start normal with
variance 2 / fan_out and every gamma at 1, torchvision's default; timm's own default of zero last gammas is off here.
Every network carries its NN-Mass and NN-Density as ``nn_mass`` and ``nn_density``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from torch import nn

from research.measures.nn_mass import nn_density, nn_mass
from research.parameters.signatures import Range

Stem = Annotated[Literal["imagenet", "cifar"], "cifar = 3x3 convolution of stride 1 and no pooling, for small images"]
ZeroInit = Annotated[bool, "start the last gamma of every block at 0, so that blocks start as the identity"]


def resnet(name: str) -> Callable[..., nn.Module]:
    """The constructor of torchvision's ``name``: a ResNet, ResNeXt or wide ResNet."""

    def construct(
        num_classes: int = 1000,
        input_shape: tuple[int, ...] = (3, 224, 224),
        /,
        *,
        zero_init: ZeroInit = False,
        stem: Stem = "imagenet",
        width: Annotated[float, Range(least=0.02), "factor of every layer's channels"] = 1.0,
    ) -> nn.Module:
        from torchvision.models import get_model

        from research.models.thin_resnet import ThinResNet  # torchvision takes a second

        if width == 1:
            model = get_model(name, weights=None, num_classes=num_classes, zero_init_residual=zero_init)
        else:
            model = ThinResNet(name, width, num_classes, zero_init)
        return _weighed(_with_stem(model, input_shape[0], stem))

    return construct


def resnet18_wobn(
    num_classes: int = 1000, input_shape: tuple[int, ...] = (3, 224, 224), /, *, stem: Stem = "imagenet"
) -> nn.Module:
    """ResNet-18 without normalisation: nothing in its place, no rescaling and no biases but the classifier's."""
    from torchvision.models import get_model

    model = get_model("resnet18", weights=None, num_classes=num_classes, norm_layer=nn.Identity)
    return _weighed(_with_stem(model, input_shape[0], stem))


def seresnet(name: str) -> Callable[..., nn.Module]:
    """The constructor of timm's ``name``: squeeze-and-excitation with reduction 16, at least 8 channels."""

    def construct(
        num_classes: int = 1000,
        input_shape: tuple[int, ...] = (3, 224, 224),
        /,
        *,
        zero_init: ZeroInit = False,
        stem: Stem = "imagenet",
    ) -> nn.Module:
        import timm

        model = timm.create_model(name, num_classes=num_classes, zero_init_last=zero_init)
        return _weighed(_with_stem(model, input_shape[0], stem))

    return construct


Count = Annotated[int, Range(least=1)]
# (expansion, channels, blocks, stride) of the stages; NN-Mass 1797 at width_mult 1.1, as the published layout at 1.4
COMPRESSED = ((1, 16, 2, 1), (6, 24, 3, 2), (6, 32, 4, 2), (6, 64, 5, 2), (6, 96, 4, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(
    num_classes: int = 1000,
    input_shape: tuple[int, ...] = (3, 224, 224),
    /,
    *,
    width_mult: Annotated[float, Range(above=0), "factor of every layer's channels, rounded to multiples of 8"] = 1.0,
    dropout: Annotated[float, Range(least=0, below=1), "dropout before the classifier"] = 0.2,
    layout: Annotated[
        Literal["published", "compressed"] | tuple[tuple[Count, Count, Count, Count], ...],
        "stages, or [expansion, channels, blocks, stride] of each; compressed = deeper, for width_mult=1.1 (NN-Mass)",
    ] = "published",
) -> nn.Module:
    """torchvision's MobileNetV2 (Sandler et al. 2018)."""
    from torchvision.models import MobileNetV2

    stages = {"published": None, "compressed": COMPRESSED}[layout] if isinstance(layout, str) else layout
    model = MobileNetV2(num_classes, width_mult, inverted_residual_setting=stages, dropout=dropout)
    first = model.features[0][0]
    if input_shape[0] != first.in_channels:
        model.features[0][0] = _conv(input_shape[0], first.out_channels, kernel_size=3, stride=2)
    model.replaced_linear = ("classifier.1",)  # by substitutes, as a 1x1 convolution
    return _weighed(model)


def _weighed(model: nn.Module) -> nn.Module:
    model.nn_mass, model.nn_density = nn_mass(model), nn_density(model)
    return model


def _with_stem(model: nn.Module, in_channels: int, stem: str) -> nn.Module:
    """Replace the first convolution where the number of channels or the stem asks for it."""
    if stem == "cifar":
        model.conv1 = _conv(in_channels, model.conv1.out_channels, kernel_size=3, stride=1)
        model.maxpool = nn.Identity()
    elif in_channels != model.conv1.in_channels:
        model.conv1 = _conv(in_channels, model.conv1.out_channels, kernel_size=7, stride=2)
    return model


def _conv(c_in: int, c_out: int, kernel_size: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
