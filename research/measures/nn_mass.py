"""NN-Density and NN-Mass: Bhardwaj, Li and Marculescu, "How does topology influence gradient propagation and model
performance of deep networks with DenseNet-type skip connections?" (CVPR 2021, arXiv 1910.00780).

A cell is a stack of d layers of width w. Beside the w outputs of the layer before it, layer l may read any of the
c_l = w (l-1) outputs of layers 0 .. l-2, and reads t_l = min(tc, c_l) of them. The density of the cell is
rho = sum t_l / sum c_l, its mass m = rho w d. A block whose shortcut is added is weighed likewise. The mass of a
network is the sum over its cells or blocks, its density their mean.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from torch import nn

from research.errors import UsageError
from research.network_protocols import HasCells


@dataclass(frozen=True)
class Cell:
    """A cell of ``depth`` >= 3 layers of ``width`` neurons or channels, at most ``tc`` >= 0 links a layer."""

    width: int
    depth: int
    tc: int

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 3), ("tc", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be >= {least}")

    @property
    def candidates(self) -> tuple[int, ...]:
        """c_l of every layer: how many outputs it could link to."""
        return tuple(self.width * max(0, layer - 1) for layer in range(self.depth))

    @property
    def links(self) -> tuple[int, ...]:
        """t_l of every layer: how many it links to."""
        return tuple(min(self.tc, c) for c in self.candidates)

    @property
    def density(self) -> float:
        return sum(self.links) / sum(self.candidates)

    @property
    def mass(self) -> float:
        return self.density * self.width * self.depth

    def draw(self, rng: random.Random) -> list[list[int]]:
        """The links of every layer: t_l of range(c_l) without replacement, layers in order from the one generator."""
        return [rng.sample(range(c), t) for c, t in zip(self.candidates, self.links, strict=True)]


@dataclass(frozen=True)
class Block:
    """A block of ResNet or MobileNetV2, by the channels that its layers read; its shortcut adds the first's to its end.

    (a, p) is a basic block from a to p channels, with mass a + p. (a, q, q) is a bottleneck of inner width q or an
    inverted residual with q hidden channels, with mass a (a + 2q) / (2a + q). Without a shortcut the mass is 0.
    """

    widths: tuple[int, ...]
    shortcut: bool = True

    @property
    def candidates(self) -> int:
        """How many outputs could be linked past at least one layer: sum of the c_l up to the end of the block."""
        return sum(sum(self.widths[: layer - 1]) for layer in range(2, len(self.widths) + 1))

    @property
    def density(self) -> float:
        return self.widths[0] / self.candidates if self.shortcut else 0.0

    @property
    def mass(self) -> float:
        return self.density * sum(self.widths)


class Topology(NamedTuple):
    """An MLP in closed form: (out, in) ``shapes`` of its linear layers; ``flops`` = 2 ``macs`` + biases."""

    nn_mass: float
    nn_density: float
    candidates: tuple[int, ...]
    links: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    params: int
    flops: int
    macs: int


def mlp_topology(width: int, depth: int, tc: int, inputs: int = 784, num_classes: int = 10) -> Topology:
    """NN-Mass and size of ``dense_mlp``, without building it.

    Raises:
        UsageError: width < 1, depth < 3 or tc < 0.
    """
    cell = Cell(width, depth, tc)
    reads = [inputs, *(width + t for t in cell.links[1:])]
    shapes = tuple(zip([*[width] * (depth - 1), num_classes], reads, strict=True))
    macs, biases = sum(out * n_in for out, n_in in shapes), sum(out for out, _ in shapes)
    return Topology(
        cell.mass, cell.density, cell.candidates, cell.links, shapes, macs + biases, 2 * macs + biases, macs
    )


def tc_for_mass(mass: float, widths: int | Sequence[int], depth: int) -> int | list[int]:
    """The cap ``tc`` with which a cell of this width and depth comes closest to ``mass``.

    For the widths of several cells, a list: every cell then has about the density mass / (depth * sum of widths).

    Raises:
        UsageError: no cap reaches the mass, because it is negative or above depth * sum of widths.
    """
    if not isinstance(widths, int):
        return [tc_for_mass(mass * width / sum(widths), width, depth) for width in widths]
    full = max(0, widths * (depth - 2))
    most = Cell(widths, depth, full).mass
    if not 0 <= mass <= most * (1 + 1e-9):
        raise UsageError(f"mass={mass:g}: must be >= 0 and <= {most:g} for width={widths} and depth={depth}")

    def reached(tc: int) -> float:
        return Cell(widths, depth, tc).mass

    above = bisect_left(range(full), mass, key=reached)
    return min((tc for tc in (above - 1, above) if tc >= 0), key=lambda tc: abs(reached(tc) - mass))


def parts(model: nn.Module) -> dict[str, Cell | Block]:
    """What the mass of a network is summed over, by module name.

    Networks with random links say so themselves (``model.cells``). Others are read from their modules: the blocks of
    ResNets, ResNeXts and wide ResNets (squeeze-and-excitation in them counts for nothing) and the inverted residuals
    of MobileNetV2, whether torchvision's, timm's or ours. A network of other parts is refused.

    Raises:
        UsageError: a network for which the papers define no NN-Mass.
    """
    if isinstance(model, HasCells):
        return {f"cells.{k}": cell for k, cell in enumerate(model.cells)}
    parts_by_name: dict[str, Cell | Block] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{block}.") for block in parts_by_name):
            continue
        if block := _block(module):
            parts_by_name[name] = block
        elif parts_by_name and isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            raise UsageError(f"NN-Mass of {type(model).__name__} is not defined: {name} is no part of a residual block")
    if not parts_by_name:
        raise UsageError(
            f"NN-Mass of {type(model).__name__} is not defined; "
            "known: dense_mlp, regular_dense, dense_depth, ResNet, ResNeXt, wide ResNet, MobileNetV2"
        )
    return parts_by_name


def _block(module: nn.Module) -> Block | None:
    """The residual block that a module is, by the names that torchvision, timm and our networks give its layers."""
    if hasattr(module, "downsample") or hasattr(module, "shortcut"):
        layers = dict(module.named_children())
        if {"conv1", "conv2"} <= layers.keys() and hasattr(layers["conv1"], "in_channels"):
            a, q = layers["conv1"].in_channels, layers["conv1"].out_channels
            return Block((a, q, q) if "conv3" in layers else (a, q))
    if hasattr(module, "use_res_connect") or hasattr(module, "has_skip"):
        convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]  # [expansion,] depthwise, projection
        if len(convs) in (2, 3) and convs[-2].groups == convs[-2].in_channels:
            a, h = convs[0].in_channels, convs[-2].in_channels
            return Block((a, h, h), getattr(module, "use_res_connect", getattr(module, "has_skip", False)))
    return None


def nn_mass(model: nn.Module) -> float:
    """NN-Mass of a network, the sum over its :func:`parts`.

    Raises:
        UsageError: as :func:`parts`.
    """
    return float(sum(part.mass for part in parts(model).values()))


def nn_density(model: nn.Module) -> float:
    """Mean density of a network's :func:`parts`; 0 when there are none.

    Raises:
        UsageError: as :func:`parts`.
    """
    return fmean(part.density for part in parts(model).values()) if parts(model) else 0.0
