"""my_method: a small convolutional network, to be changed into a network of yours.

research train plugin=my_method.py model=my_method model_args.width=32 epochs=2
research check my_method.py
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from research.parameters.signatures import Range


class MyMethod(nn.Module):
    """Three 3x3 convolutions with batch norm, the later ones at half the side and twice the width; mean; classifier."""

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, ...] = (
            3,
            32,
            32,
        ),  # (C, H, W); a run takes both from its data
        /,
        *,
        width: Annotated[int, Range(least=1), "channels of the first convolution"] = 16,
    ):
        super().__init__()
        self.first = convolution(input_shape[0], width, stride=1)
        self.second = convolution(width, 2 * width, stride=2)
        self.third = convolution(2 * width, 4 * width, stride=2)
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        x = self.third(self.second(self.first(x)))
        return self.classifier(x.mean((2, 3)))


def convolution(channels: int, out: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


MODELS = {"my_method": MyMethod}
