"""A plugin: a convolutional network without batch norm, so that a batch may be split among processes."""

from torch import Tensor, nn


class PlainNetwork(nn.Module):
    """Two stages of convolutions and a classifier; inputs are computed in the type of the weights."""

    def __init__(self, num_classes: int = 10, input_shape: tuple[int, ...] = (1, 8, 8), /, *, width: int = 8):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(input_shape[0], width, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(x.to(self.fc.weight.dtype)))
        return self.fc(self.hidden(x.mean((2, 3))).relu())


MODELS = {"plain_network": PlainNetwork}
