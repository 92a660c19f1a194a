"""Inference with zeros left out: CPU time of LeNet-300-100's linear layers, compressed rows against dense products.

    python tests/benchmarks/sparse_inference.py [--rounds 7]

One thread, float32, random masks. Every round times all ways one after another, each over about 20 ms; the table has
the least time of a call in microseconds and how many times faster than dense compressed rows are (below 1: slower).
"masked" multiplies the weight by its mask in every call; here masks are kept in place instead, at the cost of "dense".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.trained.compressed import CsrLinear

LAYERS = {"784 -> 300": (784, 300), "300 -> 100": (300, 100), "100 -> 10": (100, 10)}
SPARSITIES = (0.9, 0.95, 0.98, 0.99)
BATCHES = (1, 10, 100, 1000)
SPAN = 0.02  # seconds of one measurement


def seconds(call: Callable[[], Tensor], times: int) -> float:
    """CPU time of one of ``times`` calls."""
    started = process_time()
    for _ in range(times):
        call()
    return (process_time() - started) / times


def least(calls: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The least time of each over ``rounds`` of all, in microseconds."""
    times = {name: max(1, int(SPAN / max(1e-6, seconds(call, 3)))) for name, call in calls.items()}
    found = [{name: seconds(call, times[name]) for name, call in calls.items()} for _ in range(rounds)]
    return {name: 1e6 * min(each[name] for each in found) for name in calls}


def ways(n_in: int, n_out: int, sparsity: float, batch: int) -> dict[str, Callable[[], Tensor]]:
    torch.manual_seed(0)
    linear, x = nn.Linear(n_in, n_out, bias=False).requires_grad_(False), torch.randn(batch, n_in)
    mask = (torch.rand_like(linear.weight) >= sparsity).float()
    linear.weight *= mask
    compressed = CsrLinear.of(linear)
    torch.testing.assert_close(compressed(x), linear(x))
    weight = linear.weight
    return {"dense": lambda: linear(x), "masked": lambda: F.linear(x, weight * mask), "csr": lambda: compressed(x)}


@torch.inference_mode()
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=7)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'layer':12} {'batch':>5} {'sparsity':>8} {'dense':>9} {'masked':>9} {'csr':>9}   dense / csr")
    lost = []
    for layer, (n_in, n_out) in LAYERS.items():
        for batch in BATCHES:
            for sparsity in SPARSITIES:
                t = least(ways(n_in, n_out, sparsity, batch), rounds)
                faster = t["dense"] / t["csr"]
                lost += [f"{layer} batch {batch} at {sparsity}"] if faster < 1 else []
                numbers = " ".join(f"{t[name]:9.1f}" for name in ("dense", "masked", "csr"))
                print(f"{layer:12} {batch:5} {sparsity:8} {numbers}   {faster:.2f}")
    print(
        f"\ncsr is slower than dense in {len(lost)} of {len(LAYERS) * len(BATCHES) * len(SPARSITIES)}:",
        *lost,
        sep="\n  ",
    )


if __name__ == "__main__":
    main()
