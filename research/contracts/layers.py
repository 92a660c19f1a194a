"""What a layer in the place of a convolution promises; every function is one promise of the family ``name``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from research.contracts.bench import Make, NotAsked, trained
from research.layers.base import Geometry, Substitute
from research.layers.families import LAYERS

GEOMETRIES = (
    Geometry(8, 16, (3, 3), padding=(1, 1), bias=True),
    Geometry(16, 16, (3, 3), (2, 2), (1, 1)),
    Geometry(16, 32),
    Geometry(16, 8, (1, 1), (2, 2), bias=True),
)
SIDE = 8


def documents_itself(name: str, make: Make) -> None:
    """The class has a docstring, whose first line is listed."""
    assert vars(LAYERS[name]).get("__doc__"), "needs a docstring, whose first line `research substitutes` lists"


def has_the_output_of_the_convolution(name: str, make: Make) -> None:
    """Outputs have the shape that the convolution's have, and are finite."""
    for geometry, layer in built(name):
        y, dense = layer(inputs(geometry)), geometry.make_conv()(inputs(geometry))
        assert y.shape == dense.shape, f"{tuple(y.shape)} in place of {tuple(dense.shape)} for {geometry}"
        assert y.isfinite().all(), f"outputs are not finite for {geometry}"


def has_the_parameters_that_it_counts(name: str, make: Make) -> None:
    """``count_parameters`` is exact, before anything is built."""
    for geometry, layer in built(name):
        own = {key: value for key, value in layer.arguments.items()}
        said, is_ = layer.count_parameters(geometry, **own), sum(p.numel() for p in layer.parameters())
        assert said == is_, f"says {said:,} and has {is_:,} for {geometry}"


def counts_its_mult_adds(name: str, make: Make) -> None:
    """``count_mult_adds`` gives a number from the geometry alone."""
    for geometry, layer in built(name):
        cost = layer.count_mult_adds(geometry, (SIDE, SIDE), **layer.arguments)
        assert cost > 0, f"costs {cost} for {geometry}"


def learns_with_every_parameter(name: str, make: Make) -> None:
    """Every parameter has a finite gradient."""
    for geometry, layer in built(name):
        layer(inputs(geometry)).square().mean().backward()
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{key} for {geometry}"


def is_the_convolution_with_its_kernel(name: str, make: Make) -> None:
    """Where it says that it is linear, ``kernel()`` is that of the convolution that it computes."""
    if not LAYERS[name].linear:
        raise NotAsked("says that it is not linear")
    for geometry, layer in built(name):
        x = inputs(geometry)
        with torch.no_grad():
            off = (layer(x) - geometry.conv(x, layer.kernel(), layer.bias)).abs().max().item()
        assert off < 1e-4, f"its output and that of its kernel are {off:.2g} apart for {geometry}"


def trains_in_a_network(name: str, make: Make) -> None:
    """Two epochs of a ResNet with it in the place of convolutions end."""
    run = trained(make(model="resnet8", substitute=name, batch_size=256, name="trains"))
    assert run.status["status"] == "finished"
    assert any(isinstance(module, LAYERS[name]) for module in run.model.modules()), "replaces no layer of resnet8"


def built(name: str) -> Iterator[tuple[Geometry, Substitute]]:
    """The layer with its defaults for each geometry that it supports."""
    found = 0
    for geometry in GEOMETRIES:
        if LAYERS[name].unsupported(geometry) is None:
            found += 1
            torch.manual_seed(0)
            yield geometry, LAYERS[name](geometry)
    assert found, "supports no usual convolution"


def inputs(geometry: Geometry) -> torch.Tensor:
    """Random inputs (2, C, H, W), the same ones every time."""
    return torch.randn(2, geometry.c_in, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


PROMISES = (
    documents_itself,
    has_the_output_of_the_convolution,
    has_the_parameters_that_it_counts,
    counts_its_mult_adds,
    learns_with_every_parameter,
    is_the_convolution_with_its_kernel,
    trains_in_a_network,
)
