"""ResNets with fewer (or more) channels in every layer: the thin dense networks of the sparse-training literature."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import ResNet, get_model


class ThinResNet(ResNet):
    """torchvision's ResNet ``name`` with round(64 ``width``) channels instead of 64 in the stem, and so on.

    Topology, initialisation and state_dict keys stay torchvision's (Mostafa and Wang 2019 compare with such networks).
    """

    def __init__(self, name: str, width: float, num_classes: int, zero_init: bool):
        with torch.device("meta"):
            full = get_model(name, weights=None)
        stages = [full.layer1, full.layer2, full.layer3, full.layer4]
        self._base = round(64 * width)
        super().__init__(
            type(full.layer1[0]),
            [len(stage) for stage in stages],
            num_classes=num_classes,
            zero_init_residual=zero_init,
            groups=full.groups,
            width_per_group=full.base_width,
        )
        self.fc = nn.Linear(self.inplanes, num_classes)

    def _make_layer(self, block: type[nn.Module], planes: int, *args, **kwargs) -> nn.Sequential:
        if planes == 64:  # the first stage: the stem before it has just been made
            self.inplanes = self._base
            self.conv1 = nn.Conv2d(3, self._base, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(self._base)
        return super()._make_layer(block, self._base * planes // 64, *args, **kwargs)
