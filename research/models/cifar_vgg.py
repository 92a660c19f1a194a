"""VGG for 32x32 images, as the CIFAR literature uses it: Simonyan and Zisserman's configurations with batch norm.

Features are torchvision's; on 32x32 images five poolings leave 1x1x512, so the classifier is this file's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from torch import nn

Head = Literal["linear", "mlp"]


def cifar_vgg(configuration: Literal["A", "B", "D", "E"]) -> Callable[..., nn.Sequential]:
    """The constructor of VGG-11 (A), -13 (B), -16 (D) or -19 (E); weights start as PyTorch has them."""

    def construct(
        num_classes: int = 10,
        input_shape: tuple[int, ...] = (3, 32, 32),
        /,
        *,
        head: Annotated[Head, "mlp = 512-4096-4096-classes with dropout; linear = 512-classes"] = "mlp",
    ) -> nn.Sequential:
        from torchvision.models.vgg import cfgs, make_layers

        features = make_layers(cfgs[configuration], batch_norm=True)
        if input_shape[0] != 3:
            features[0] = nn.Conv2d(input_shape[0], 64, 3, padding=1)
        return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), _head(head, num_classes))

    return construct


def _head(head: Head, num_classes: int) -> nn.Module:
    if head == "linear":
        return nn.Linear(512, num_classes)
    return nn.Sequential(
        nn.Linear(512, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, num_classes),
    )
