"""A small CNN that learns CIFAR-10 in minutes of a CPU: fixed filters on patches, then 3x3 convolutions.

That a first layer may be set once, to whiten patches, and stay is known from Coates and Ng (2012) and from the
speed-runs of CIFAR-10 (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"), where the filters are measured
on the images. Here they follow from how natural images are correlated, and no image is needed.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import torch
from torch import nn

from research.parameters.signatures import Range

PATCH, STRIDE = 4, 2
NEIGHBOURS = 0.95  # correlation of pixels side by side in CIFAR-10 (0.947), falling by this factor a pixel
COLOURS = {  # directions of RGB, each channel normalised, and their variances in CIFAR-10
    (1, 1, 1): 2.70,
    (1, 0, -1): 0.27,
    (1, -2, 1): 0.034,
}
FLOOR = 0.01  # added to each variance: what hardly ever varies is noise

Init = Literal["dirac", "normal"]


def whitening_filters(channels: int, count: int) -> np.ndarray:
    """The ``count`` filters (count, channels, 4, 4) that patches of natural images vary most along, variance to 1.

    For pixels correlated as a Markov chain along rows and columns these are, nearly, the products of cosines of the DCT
    (Ahmed, Natarajan and Rao 1974), times directions of colour where there are three channels.
    """
    x = np.arange(PATCH)
    cosines = np.cos(np.pi * x[:, None] * (x + 0.5) / PATCH) * math.sqrt(2 / PATCH)
    cosines[0] /= math.sqrt(2)  # (frequency, x), orthonormal
    spread = np.einsum("ux,xy,uy->u", cosines, NEIGHBOURS ** np.abs(x[:, None] - x), cosines)

    colours = COLOURS if channels == 3 else dict.fromkeys(map(tuple, np.eye(channels)), 1.0)
    directions = np.array(list(colours)) / np.linalg.norm(list(colours), axis=1, keepdims=True)
    variance = np.einsum("c,u,v->cuv", list(colours.values()), spread, spread).ravel()
    filters = np.einsum("ci,ux,vy->cuvixy", directions, cosines, cosines).reshape(-1, channels, PATCH, PATCH)
    most = np.argsort(-variance, kind="stable")[:count]
    return (filters[most] / np.sqrt(variance[most] + FLOOR)[:, None, None, None]).astype(np.float32)


class DctCnn(nn.Sequential):
    """Whitened 4x4 patches at stride 2 and their negatives, ReLU; stages of ``depth`` convolutions; mean; linear.

    Every stage halves the image after its first convolution. All convolutions have 3x3 taps and batch norm, but for the
    first one: its filters are fixed, and only its bias is learnt. With ``init="dirac"`` a convolution starts by passing
    its first channels on; PyTorch's own initial values for the others.
    """

    def __init__(
        self, num_classes: int, in_channels: int, widths: tuple[int, ...], depth: int, init: Init, batch_norm: bool
    ):
        filters = torch.from_numpy(whitening_filters(in_channels, 24))
        stem = nn.Conv2d(in_channels, 2 * len(filters), PATCH, STRIDE, padding=1)
        nn.init.zeros_(stem.bias)
        with torch.no_grad():
            stem.weight.copy_(torch.cat([filters, -filters]))
        stem.weight.requires_grad_(False)
        layers, c_in = [stem, nn.ReLU()], stem.out_channels
        for width in widths:
            stage = []
            for place in range(depth):
                conv = nn.Conv2d(c_in, width, 3, padding=1, bias=not batch_norm)
                if init == "dirac":
                    nn.init.dirac_(conv.weight[:c_in])
                else:
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                stage += [conv, *([] if place else [nn.MaxPool2d(2)])]
                stage += [*([nn.BatchNorm2d(width)] if batch_norm else []), nn.ReLU()]
                c_in = width
            layers.append(nn.Sequential(*stage))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, num_classes))


def dct_cnn(
    num_classes: int = 10,
    input_shape: tuple[int, ...] = (3, 32, 32),
    /,
    *,
    widths: Annotated[tuple[Annotated[int, Range(least=1)], ...], "channels of each stage"] = (64, 128),
    depth: Annotated[int, Range(least=1), "3x3 convolutions of a stage"] = 2,
    init: Annotated[Init, "first weights of them: dirac = the input passes; normal = variance 2 / fan_out"] = "dirac",
    batch_norm: Annotated[bool, "batch norm after every 3x3 convolution instead of its bias"] = True,
) -> DctCnn:
    """The network that the recipe ``cifar-minutes`` trains."""
    return DctCnn(num_classes, input_shape[0], widths, depth, init, batch_norm)
