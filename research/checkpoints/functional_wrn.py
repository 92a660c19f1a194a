"""The published WRN-50-2 (Zagoruyko and Komodakis 2016): a functional network, read as torchvision's wide_resnet50_2.

In it every convolution has a bias, into which its batch norm was folded: conv0, group{0-3}.block{i}.conv{0-2} and
.conv_dim (the shortcut), fc. Here the bias becomes that of the batch norm, whose other values make it the identity.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

EPS = 1e-5  # of torch's batch norm: with a variance of 1 - EPS it divides by exactly 1
SIGNS = {"conv0.weight", "conv0.bias", "group0.block0.conv_dim.weight", "group3.block2.conv2.bias", "fc.weight"}
NAME = re.compile(r"(?:group(\d)\.block(\d)\.)?(conv\d|conv_dim|fc)\.(weight|bias)")


def is_functional_wrn(tensors: dict[str, Tensor]) -> bool:
    """Whether these weights come from that checkpoint, judged by their names."""
    return SIGNS <= tensors.keys() and all(NAME.fullmatch(name) for name in tensors)


def to_torchvision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of torchvision's network that computes the same function, from names of the functional one."""
    state = {}
    for name, value in tensors.items():
        group, block, layer, kind = NAME.fullmatch(name).groups()
        where = f"layer{int(group) + 1}.{block}." if group else ""
        if layer == "fc":
            state[name] = value
        elif kind == "weight":
            state[f"{where}{_layer('conv', layer)}.weight"] = value
        else:
            one = torch.ones_like(value)
            bn = {"weight": one, "bias": value, "running_mean": torch.zeros_like(value), "running_var": one - EPS}
            state |= {f"{where}{_layer('bn', layer)}.{key}": given for key, given in bn.items()}
    return state


def _layer(kind: str, layer: str) -> str:
    """The module of ``kind`` conv or bn that stands for the functional ``layer``."""
    if layer == "conv_dim":
        return "downsample.0" if kind == "conv" else "downsample.1"
    return f"{kind}{int(layer[-1]) + 1}"
