"""What a substitute costs beside the dense convolution: CPU time of one residual block, forward and backward.

    python tests/benchmarks/layers.py [--rounds 12] [--only acdc tt] [--channels-last]
    python tests/benchmarks/layers.py --kernels

A block is BN-ReLU-conv-BN-ReLU-conv plus its input, in training mode, float32, on one thread; both 3x3 convolutions
are replaced. Every round runs every family once, one after another; the table gives the least time of each and its
ratio to the dense block. ``--kernels`` times what ACDC adds, building K from 11 factors forward and backward, against
the chain that the published code runs: factor by factor, each step a product of matrices, under activation
checkpointing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from research.layers import LAYERS, Geometry
from research.layers.acdc import stack_by_fft, stack_by_products
from research.layers.cosine import dct_matrix, riffle
from research.models.wrn import Block

SHAPES = {"16ch 32x32 b128": (128, 16, 32), "32ch 16x16 b128": (128, 32, 16), "64ch 8x8 b128": (128, 64, 8)}
SHAPES |= {"160ch 32x32 b8": (8, 160, 32), "640ch 8x8 b16": (16, 640, 8)}
ROWS = {name: (name, {}) for name in LAYERS} | {
    "tucker, dense core": ("tucker", {"core": "dense"}),
    "shuffle:4": ("shuffle", {"groups": 4}),
}
del ROWS["shuffle"]


def block(channels: int, family: str | None, own: dict) -> nn.Module:
    torch.manual_seed(0)
    made = Block(channels, channels, stride=1, dropout=0.0)
    for name in ("conv1", "conv2") if family else ():
        setattr(made, name, LAYERS[family](Geometry.of(getattr(made, name)), **own))
    return made


def seconds(work: Callable[[], Tensor], parameters: list[Tensor], gradient: Tensor) -> float:
    for parameter in parameters:
        parameter.grad = None
    started = process_time()
    work().backward(gradient)
    return process_time() - started


def least(works: dict[str, tuple[Callable[[], Tensor], list[Tensor]]], gradient: Tensor, rounds: int) -> dict:
    """The least seconds of each over ``rounds`` of all, after one that warms up."""
    times = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name, (work, parameters) in works.items():
            times[name].append(seconds(work, parameters, gradient))
    return {name: min(found[1:]) for name, found in times.items()}


def blocks(rounds: int, only: list[str], channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    chosen = {"dense": (None, {})} | {name: row for name, row in ROWS.items() if not only or row[0] in only}
    table = {name: [] for name in chosen}
    for batch, channels, side in SHAPES.values():
        x = torch.randn(batch, channels, side, side).to(memory_format=layout).requires_grad_()
        works = {}
        for name, (family, own) in chosen.items():
            made = block(channels, family, own).to(memory_format=layout)
            works[name] = (lambda made=made, x=x: made(x), [x, *made.parameters()])
        found = least(works, torch.randn_like(x), rounds if channels < 160 else max(3, rounds // 4))
        for name, time in found.items():
            table[name].append(f"{1e3 * time:.1f} x{time / found['dense']:.2f}")
    print("| ms, ratio to dense |", " | ".join(SHAPES), "|\n|", " --- |" * (1 + len(SHAPES)))
    for name, cells in table.items():
        print(f"| {name} |", " | ".join(cells), "|")


def chain(A: Tensor, D: Tensor) -> Tensor:
    """K as the published code builds it."""
    n = A.shape[1]
    q, halves = dct_matrix(n), (2, n // 2)

    def build(A: Tensor, D: Tensor) -> Tensor:
        K = None
        for a, d in zip(A, D, strict=True):
            cosine = (torch.eye(n) * a) @ q
            factor = (cosine.unflatten(1, halves[::-1]).transpose(1, 2).flatten(1) * d) @ q.T
            factor = factor.unflatten(1, halves[::-1]).transpose(1, 2).flatten(1)
            K = factor if K is None else K @ factor
        return K

    return checkpoint(build, A, D, use_reentrant=False)


def kernels(rounds: int) -> None:
    print("| rows | chain, ms | products | FFT | largest difference |\n| --- | --- | --- | --- | --- |")
    for n in (16, 32, 64, 128, 160, 320, 640):
        A, D = (1 + 0.01 * torch.randn(11, n)).requires_grad_(), (1 + 0.01 * torch.randn(11, n)).requires_grad_()
        r, parameters = riffle(n), [A, D]
        builds = {
            "chain": lambda A=A, D=D: chain(A, D),
            "products": lambda A=A, D=D, r=r: stack_by_products(A, D, r, r),
            "FFT": lambda A=A, D=D, r=r: stack_by_fft(A, D, r, r),
        }
        expected = builds["chain"]()
        off = max(float((build() - expected).detach().abs().max()) for build in builds.values())
        works = {name: (build, parameters) for name, build in builds.items()}
        found = least(works, torch.randn(n, n), rounds * 4 if n < 160 else max(3, rounds // 2))
        cells = [f"{1e3 * t:.2f} (x{found['chain'] / t:.1f} faster)" for t in found.values()]
        print(f"| {n} | {1e3 * found['chain']:.2f} | {cells[1]} | {cells[2]} | {off:.0e} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=[], choices=list(LAYERS))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kernels(given.rounds) if given.kernels else blocks(given.rounds, given.only, given.channels_last)


if __name__ == "__main__":
    main()
