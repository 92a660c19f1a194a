"""A small convolutional network, without batch norm unless asked for, in which every method finds what it acts on."""

from torch import Tensor, nn

from research.hooks import HOOKS
from research.layers.drop_path import DropPath

MORE = {"gram": {"warmup": 0}, "distill": {"alpha": 0.5}, "ema": {"decay": 0.9}}
ACTING = {name: dict(hook.exercise) | MORE.get(name, {}) for name, hook in HOOKS.items()}
"""Every method with parameters that make it act within two epochs of five steps."""


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut around them, for ``drop_path``."""

    def __init__(self, channels: int, norm: type[nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = norm(channels)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())))


class PlainNetwork(nn.Module):
    """Two stages, for ``distill``, a matrix between two vectors, and a second head, for ``auxiliary``.

    Inputs are computed in the type of the weights, so that it can train in float64.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, ...] = (1, 8, 8), /, *, width: int = 8, norm: bool = False
    ):
        super().__init__()
        normalisation = nn.BatchNorm2d if norm else nn.Identity
        self.stem = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.layer1 = nn.Sequential(Block(width, normalisation))
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.layer2 = nn.Sequential(Block(2 * width, normalisation))
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.fc = nn.Linear(2 * width, num_classes)
        self.auxiliary_head = None
        self.auxiliary_logits: Tensor | None = None

    def add_auxiliary_head(self) -> None:
        self.auxiliary_head = nn.Linear(self.stem.out_channels, self.fc.out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.stem(x.to(self.fc.weight.dtype)).relu())
        if self.auxiliary_head is not None and self.training:
            self.auxiliary_logits = self.auxiliary_head(x.mean((2, 3)))
        x = self.layer2(self.down(x).relu())
        return self.fc(self.hidden(x.mean((2, 3))).relu())
