"""MobileNetV1: Howard et al. 2017.

Our own, because timm's mobilenetv1_100 starts training differently: it has ReLU6 for ReLU, and starts depthwise
kernels with variance 2/(k k) where the networks of the GraM and DyRep papers have 2/(k k out).
"""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor, nn

from research.parameters.signatures import Range

# (channels, stride) of the 13 depthwise-separable units
UNITS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class MobileNetV1(nn.Module):
    """3x3/2 stem, depthwise-separable units, average pooling, linear; batch norm and ReLU after each convolution.

    It has no shortcuts, so its NN-Mass is 0.

    Convolutions start normal with std sqrt(2 / (k k out)), the linear layer uniform in +-1/sqrt(out), its bias at 0.
    """

    cells, nn_mass, nn_density = (), 0.0, 0.0

    def __init__(self, num_classes: int, in_channels: int, width_mult: float = 1.0):
        super().__init__()
        c_in = max(8, round(32 * width_mult))
        layers = [_conv_bn_relu(in_channels, c_in, 3, stride=2)]
        for channels, stride in UNITS:
            c_out = max(8, round(channels * width_mult))
            depthwise = _conv_bn_relu(c_in, c_in, 3, stride, groups=c_in)
            layers.append(nn.Sequential(depthwise, _conv_bn_relu(c_in, c_out, 1)))
            c_in = c_out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        limit = 1 / math.sqrt(self.classifier.out_features)
        nn.init.uniform_(self.classifier.weight, -limit, limit)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def _conv_bn_relu(c_in: int, c_out: int, k: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, k, stride, padding=k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def mobilenet_v1(
    num_classes: int = 1000,
    input_shape: tuple[int, ...] = (3, 224, 224),
    /,
    *,
    width_mult: Annotated[float, Range(above=0), "factor of every layer's channels"] = 1.0,
) -> MobileNetV1:
    """MobileNetV1 for images of any size."""
    return MobileNetV1(num_classes, input_shape[0], width_mult)
