"""What a substitute costs beside the dense convolution: CPU time forward and backward, training mode, one thread.

    python tests/benchmarks/layers.py [acdc tt:0.25 tucker:core=dense …] [--rounds 12] [--channels-last]
    python tests/benchmarks/layers.py [acdc …] --alone [--rounds 12]
    python tests/benchmarks/layers.py --kernels

By default, a residual block BN-ReLU-conv-BN-ReLU-conv plus its input, with both 3x3 convolutions replaced; float32.
``--alone`` runs one layer on one image of 3x3 pixels: calling it, and building its kernel. ``--kernels`` times what
ACDC adds, K from 11 factors, also by a tree of batched products. ``acdc-published`` builds K as the published code
does: factor by factor, each step a product of matrices, under activation checkpointing.

Every round runs everything once in an order drawn anew, so that what a row leaves in the caches falls on every other;
the tables give the least time of each. Without specs: every family.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from time import process_time

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from research.layers.base import Geometry
from research.layers.families import LAYERS
from research.layers.families.acdc import ACDC, stack_by_fft, stack_by_products
from research.layers.families.cosine import dct_matrix, riffle
from research.layers.spec import parse_spec
from research.models.wrn import Block

PUBLISHED = "acdc-published"
SPECS = ["sep", *(family for family in LAYERS if family != "sep"), "tucker:core=dense", PUBLISHED]
SHAPES = {"16ch 32x32 b128": (128, 16, 32), "32ch 16x16 b128": (128, 32, 16), "64ch 8x8 b128": (128, 64, 8)}
WIDE = {"160ch 32x32 b8": (8, 160, 32), "640ch 8x8 b16": (16, 640, 8)}
ALONE = {f"{channels}ch": (1, channels, 3) for channels in (16, 32, 64)}
Works = dict[str, tuple[Callable[[], Tensor], list[Tensor]]]
"""Name -> what to run, and what it is differentiated by."""


def layer(channels: int, spec: str) -> nn.Module:
    geometry = Geometry(channels, channels, (3, 3), padding=(1, 1))
    if spec == "dense":
        return geometry.make_conv()
    if spec == PUBLISHED:
        made = ACDC(geometry)
        made.matrix = lambda: chain(made.A, made.D)
        return made
    parsed = parse_spec(spec)
    return parsed.layer(geometry, **parsed.arguments)


def block(channels: int, spec: str) -> nn.Module:
    made = Block(channels, channels, stride=1, dropout=0.0)
    made.conv1, made.conv2 = layer(channels, spec), layer(channels, spec)
    return made


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

    return checkpoint(build, A, D, use_reentrant=True)  # the faster of the two, and the one at that time


def tree(A: Tensor, D: Tensor) -> Tensor:
    """K from pairs of factors, then pairs of pairs, each level one batched product."""
    q, r = dct_matrix(A.shape[1]), riffle(A.shape[1])
    factors = (q.index_select(1, r) * D[:, None]) @ q.T.index_select(1, r) * A[:, :, None]
    while len(factors) > 1:
        paired = len(factors) // 2 * 2
        first, second, odd = factors[:paired:2], factors[1:paired:2], factors[paired:]
        factors = torch.cat([first @ second, odd]) if len(odd) else first @ second
    return factors[0]


def seconds(work: Callable[[], Tensor], parameters: list[Tensor], gradient: Tensor) -> float:
    for parameter in parameters:
        parameter.grad = None
    started = process_time()
    work().backward(gradient)
    return process_time() - started


def least(works: Works, gradient: Tensor, rounds: int) -> dict[str, float]:
    """The least seconds of each over ``rounds`` of all, after one that warms up."""
    times = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name in random.sample(list(works), len(works)):
            times[name].append(seconds(*works[name], gradient))
    return {name: min(found[1:]) for name, found in times.items()}


def modules(make: Callable[[int, str], nn.Module], shapes: dict, specs: list[str], rounds: int, layout: str) -> None:
    """Print a table of what ``make(channels, spec)`` takes, beside the dense convolution."""
    memory_format = getattr(torch, layout)
    table = {spec: [] for spec in ("dense", *specs)}
    for batch, channels, side in shapes.values():
        x = torch.randn(batch, channels, side, side).to(memory_format=memory_format).requires_grad_()
        made = {spec: make(channels, spec).to(memory_format=memory_format) for spec in table}
        works = {spec: (partial(module, x), [x, *module.parameters()]) for spec, module in made.items()}
        found = least(works, torch.randn_like(x), rounds if channels < 160 else max(3, rounds // 4))
        for spec, time in found.items():
            table[spec].append(f"{1e3 * time:.{1 if batch > 1 else 3}f} x{time / found['dense']:.2f}")
    print_row("ms, ratio to dense", *shapes)
    print_row(*["---"] * (1 + len(shapes)))
    for spec, cells in table.items():
        print_row(spec, *cells)


def kernels(rounds: int) -> None:
    print_row("rows", "published chain, ms", "tree", "products", "FFT", "largest difference")
    print_row(*["---"] * 6)
    for n in (16, 32, 64, 128, 160, 320, 640):
        A, D = (1 + 0.01 * torch.randn(11, n)).requires_grad_(), (1 + 0.01 * torch.randn(11, n)).requires_grad_()
        r, parameters = riffle(n), [A, D]
        builds = {
            "chain": partial(chain, A, D),
            "tree": partial(tree, A, D),
            "products": partial(stack_by_products, A, D, r, r),
            "FFT": partial(stack_by_fft, A, D, r, r),
        }
        expected = builds["chain"]()
        off = max(float((build() - expected).detach().abs().max()) for build in builds.values())
        works = {name: (build, parameters) for name, build in builds.items()}
        found = least(works, torch.randn(n, n), rounds * 4 if n < 160 else max(3, rounds // 2))
        cells = [f"{1e3 * t:.2f} (x{found['chain'] / t:.1f} faster)" for t in found.values()]
        print_row(str(n), f"{1e3 * found['chain']:.2f}", *cells[1:], f"{off:.0e}")


def print_row(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=SPECS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--channels-last", dest="layout", action="store_const", const="channels_last")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    parser.set_defaults(layout="contiguous_format")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if given.kernels:
        kernels(given.rounds)
    elif given.alone:
        modules(layer, ALONE, given.specs, 10 * given.rounds, given.layout)
    else:
        modules(block, SHAPES | WIDE, given.specs, given.rounds, given.layout)


if __name__ == "__main__":
    main()
