"""Cost of the PowerGrad loss, forward and backward, against ``F.cross_entropy``.

    OMP_NUM_THREADS=1 python tests/benchmarks/power_grad.py [--rounds 15]

CPU time of one thread. Every round runs both losses one after another, in an order that alternates; the table gives the
median time and the median of the ratios within a round, with that of plain against itself as the noise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from research.hooks.power_grad import power_grad_cross_entropy

SIZES = ((1024, 1000), (256, 1000), (128, 100), (128, 10))
ENTRIES = 6_000_000  # logits a measurement goes through


def seconds(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> float:
    """CPU seconds of one forward and backward pass, the mean of several."""
    repeats = max(3, ENTRIES // z.numel())
    started = time.process_time()
    for _ in range(repeats):
        z.grad = None
        loss(z, y).backward()
    return (time.process_time() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| logits | smoothing | plain, us | noise | PowerGrad, us | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for (rows, classes), smoothing in ((size, s) for size in SIZES for s in (0.0, 0.1)):
        generator = torch.Generator().manual_seed(0)
        z = (3 * torch.randn(rows, classes, generator=generator)).requires_grad_()
        y = torch.randint(classes, (rows,), generator=generator)
        plain = partial(F.cross_entropy, label_smoothing=smoothing)
        ours = partial(power_grad_cross_entropy, alpha=0.25, smoothing=smoothing)
        compared = [plain, plain, ours]
        rounds = []
        for number in range(options.rounds + 1):
            order = compared if number % 2 else compared[::-1]
            measured = [seconds(loss, z, y) for loss in order]
            rounds.append(measured if number % 2 else measured[::-1])
        first, again, own = np.array(rounds[1:]).T  # the first round warms up
        noise, ratio = np.median(again / first), np.median(own / first)
        times = f"{1e6 * np.median(first):,.0f} | {noise:.2f} | {1e6 * np.median(own):,.0f} | {ratio:.2f}"
        print(f"| {rows} x {classes} | {smoothing:g} | {times} |", flush=True)


if __name__ == "__main__":
    main()
