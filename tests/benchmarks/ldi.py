"""Cost of LDI of one MLP over many images: ours against loops that decompose one Jacobian after another.

    python tests/benchmarks/ldi.py

All find the same mean. ``autograd`` asks PyTorch for the Jacobian of every layer and decomposes it in full;
``published`` does as the published program: it fills the diagonal matrices of slopes one element at a time, recording
gradients, and takes singular vectors along; ``tight`` is the tightest loop without new mathematics: torch.diag, no
gradients, singular values only. Loops run over fewer images, and their time is scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from pairs import Row, Ways, main
from torch import Tensor

from research.measures.ldi import ldi, true_slope
from research.models import create_model
from research.models.dense_mlp import DenseMLP


def by_autograd(model: DenseMLP, x: Tensor) -> Iterator[Tensor]:
    last = len(model.layers) - 1
    for sample in x[:, None]:
        with torch.no_grad():
            z, _ = model.states(sample)
        for layer, linear in enumerate(model.layers):

            def stage(v: Tensor, layer: int = layer, linear: torch.nn.Linear = linear) -> Tensor:
                if layer == 0:
                    return model.act(linear(v))
                return linear(model.act(v) if 1 < layer < last else v)

            yield torch.linalg.svd(torch.autograd.functional.jacobian(stage, z[layer][0])).S


def as_published(model: DenseMLP, x: Tensor) -> Iterator[Tensor]:
    def diagonal(slopes: Tensor) -> Tensor:
        matrix = torch.zeros(len(slopes), len(slopes))
        for i in range(len(slopes)):
            matrix[i, i] = slopes[i]
        return matrix

    for sample in x[:, None]:
        for jacobian in _jacobians(model, sample, diagonal):
            yield torch.svd(jacobian).S


@torch.no_grad()
def tightly(model: DenseMLP, x: Tensor) -> Iterator[Tensor]:
    for sample in x[:, None]:
        for jacobian in _jacobians(model, sample, torch.diag):
            yield torch.linalg.svdvals(jacobian)


def _jacobians(model: DenseMLP, sample: Tensor, diagonal: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    z, h = model.states(sample)
    last = len(model.layers) - 1
    for layer, linear in enumerate(model.layers):
        if layer == 0:
            yield diagonal(true_slope(model.act, h[0][0])) @ linear.weight
        elif 1 < layer < last:
            yield linear.weight @ diagonal(true_slope(model.act, z[layer][0]))
        else:
            yield linear.weight


def network_and_images(images: int, width: int = 8) -> tuple[DenseMLP, Tensor]:
    torch.manual_seed(0)
    return create_model("dense_mlp", 10, (784,), width=width, depth=8, tc=10), torch.rand(images, 784)


def against(loop: Callable[[DenseMLP, Tensor], Iterator[Tensor]], looped: int, small: bool) -> Ways:
    model, x = network_and_images(100 if small else 10_000)
    few = x[: 2 if small else looped]
    mean, expected = torch.cat(list(loop(model, few))).mean().item(), ldi(model, few, batch_size=len(few)).mean
    assert abs(mean - expected) < 1e-5, f"{loop.__name__} finds {mean}, ours {expected}"
    return Ways(lambda: ldi(model, x), lambda: list(loop(model, few)), more=len(x) / len(few))


LOOPS = {
    "a tight loop over samples": partial(against, tightly, 100),
    "the published program": partial(against, as_published, 30),
    "autograd's Jacobians": partial(against, by_autograd, 10),
}
ROWS = [Row("LDI, 10,000 images, MLP 8 wide, 8 deep", rival, ">= 10", ways) for rival, ways in LOOPS.items()]

if __name__ == "__main__":
    main(ROWS, __doc__)
