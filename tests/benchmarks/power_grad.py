"""Cost of the PowerGrad loss, forward and backward, against ``F.cross_entropy``.

python tests/benchmarks/power_grad.py
"""

from __future__ import annotations

from functools import partial

import torch
from pairs import Row, Ways, main
from torch.nn import functional as F

from research.hooks.power_grad import power_grad_cross_entropy


def against_plain(rows: int, classes: int, smoothing: float, small: bool) -> Ways:
    generator = torch.Generator().manual_seed(0)
    z = (3 * torch.randn(rows // 8 if small else rows, classes, generator=generator)).requires_grad_()
    y = torch.randint(classes, (len(z),), generator=generator)

    def both(loss) -> None:
        z.grad = None
        loss(z, y).backward()

    ours = partial(power_grad_cross_entropy, alpha=0.25, smoothing=smoothing)
    return Ways(partial(both, ours), partial(both, partial(F.cross_entropy, label_smoothing=smoothing)))


SIZES = ((1024, 1000), (256, 1000), (128, 100), (128, 10))
ROWS = [
    Row(f"PowerGrad, {rows:,} x {classes:,}{f', smoothing {smoothing}' * bool(smoothing)}", "F.cross_entropy",
        "<= 1.05" if smoothing else "<= 1.15", partial(against_plain, rows, classes, smoothing))
    for smoothing in (0.0, 0.1)
    for rows, classes in SIZES
]  # fmt: skip

if __name__ == "__main__":
    main(ROWS, __doc__)
