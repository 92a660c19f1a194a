"""Attention maps: where in an image the activations of a layer are large, and the layers whose maps are compared.

Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.errors import UsageError, nearest
from research.network_protocols import NamesTaps

HALF = (torch.float16, torch.bfloat16)


def attention_map(a: Tensor) -> Tensor:
    """Where activations ``a`` (N, C, H, W) are large: mean over channels of a^2, (N, HW), every row of length 1.

    A row of zeros stays zero. The result is float32 for half precision too, and float64 for float64.
    """
    return F.normalize(full_precision(a).square().mean(1).flatten(1), eps=1e-12)


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32 if it is in half precision, else unchanged."""
    return x.float() if x.dtype in HALF else x


def find_taps(network: nn.Module, named: Sequence[str], split: int) -> list[str]:
    """The modules ``named``, or if there are none, those of :func:`known_taps`.

    Raises:
        UsageError: the network has no such module, or none is known.
    """
    names = [name for name, _ in network.named_modules() if name]
    for tap in named:
        if tap not in names:
            raise UsageError(f"distill.taps: {type(network).__name__} has no module {tap!r}{nearest(tap, names)}")
    found = list(named) or known_taps(network, split)
    if not found:
        raise UsageError(
            f"distill: {type(network).__name__} has no known places for attention maps; give distill.beta=0 to train "
            "towards the teacher's logits alone, or distill.taps=[…], names of modules"
        )
    return found


def known_taps(network: nn.Module, split: int = 1) -> list[str]:
    """The modules at the ends of the stages of a network; none where that is not known.

    Raises:
        UsageError: ``split`` does not divide the blocks of every stage.
    """
    stages = {n: m for n, m in network.named_children() if re.fullmatch(r"(group|layer)\d", n)}
    for name, stage in stages.items():
        if len(stage) % split:
            raise UsageError(f"distill.split={split}: does not divide the {len(stage)} blocks of {name}")
    if split > 1:
        return [f"{n}.{len(m) * part // split - 1}" for n, m in stages.items() for part in range(1, split + 1)]
    if stages:
        return list(stages)
    if isinstance(network, NamesTaps):
        return network.attention_taps()
    return [n for n, m in network.named_modules() if type(m).__name__ == "InvertedResidual" and m.stride == 2]


def recorded_maps(network: nn.Module, names: Sequence[str]) -> dict[str, Tensor | None]:
    """Attention maps at the modules ``names``, in this order: those of the network's newest forward pass, always."""
    maps: dict[str, Tensor | None] = dict.fromkeys(names)

    def record(name: str) -> None:
        def keep(module: nn.Module, args: tuple, output: Any) -> None:  # a closure: copies of the network share it
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise UsageError(f"distill: {name} does not give feature maps (N, C, H, W); choose other taps")
            maps[name] = attention_map(output)

        network.get_submodule(name).register_forward_hook(keep)

    for name in names:
        record(name)
    return maps
