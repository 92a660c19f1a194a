"""Cost of LDI of one MLP over many images: ours against loops that decompose one Jacobian after another.

    python tests/benchmarks/ldi.py [--images 10000] [--looped 100] [--width 8] [--depth 8] [--tc 10] [--rounds 3]

All find the same mean. ``autograd`` asks PyTorch for the Jacobian of every layer and decomposes it in full;
``published`` does as the published program: it fills the diagonal matrices of slopes one element at a time, recording
gradients, and takes singular vectors along; ``plain`` is the tightest loop without new mathematics: torch.diag, no
gradients, singular values only. Loops run over ``--looped`` images, and their time is scaled to ``--images``. CPU
seconds on one thread, minimum over rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from research.measures.ldi import ldi, ldi_many, true_slope
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
def plainly(model: DenseMLP, x: Tensor) -> Iterator[Tensor]:
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


def seconds(work: Callable[[], float]) -> tuple[float, float]:
    started = time.process_time()
    mean = work()
    return time.process_time() - started, mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 10_000, "looped": 100, "width": 8, "depth": 8, "tc": 10, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {name: getattr(given, name) for name in ("width", "depth", "tc")}
    models = [create_model("dense_mlp", 10, (784,), **shape) for _ in range(16)]
    x = torch.rand(given.images, 784)
    few = x[: given.looped]
    loops = {"autograd": by_autograd, "published": as_published, "plain": plainly}
    works: dict[str, Callable[[], float]] = {
        name: lambda loop=loop: torch.cat(list(loop(models[0], few))).mean().item() for name, loop in loops.items()
    }
    works["ours"] = lambda: ldi(models[0], x).mean
    works["ours, a 16th of the images, 16 networks"] = lambda: ldi_many(models, x[: given.images // 16])[0].mean
    best = {name: min(seconds(work)[0] for _ in range(given.rounds)) for name, work in works.items()}
    best |= {name: best[name] * given.images / given.looped for name in loops}
    expected = ldi(models[0], few, batch_size=len(few)).mean
    print(f"{given.images} images, {shape}, one thread; CPU s, and how often ours fits into it")
    for name, cost in best.items():
        if name in loops:
            error = abs(works[name]() - expected)
            print(f"{name:>40} {cost:8.2f} {cost / best['ours']:7.1f}x   mean differs by {error:.0e}")
        else:
            print(f"{name:>40} {cost:8.2f}")


if __name__ == "__main__":
    main()
