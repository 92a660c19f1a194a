"""Cost of a checkpoint of WRN-28-10 with a sparse method, against plain ``torch.save`` of the same state.

    OMP_NUM_THREADS=1 python tests/benchmarks/checkpoints.py [--rounds 5]

CPU time, in pairs whose order alternates; the median ratio with the least and the largest. Memory is what saving adds
to the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from research.checkpoints import checkpoint
from research.models import create_model


def state() -> dict:
    """What a run of WRN-28-10 with ``set`` and momentum saves: weights, momentum, and a byte a weight of history."""
    model = create_model("wrn-28-10", 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    history = {name: torch.ones(p.numel(), dtype=torch.uint8) for name, p in model.named_parameters() if p.ndim > 1}
    hooks = {"set": {"history": history}}
    return {"step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "hooks": hooks}


def seconds(save: Callable[[], object]) -> float:
    started = time.process_time()
    save()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    saved = state()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path = checkpoint.save(folder, 1, saved)
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        pairs = []
        for number in range(options.rounds):
            ways = [lambda: torch.save(saved, folder / "plain"), lambda: checkpoint.save(folder, 1, saved)]
            measured = [seconds(way) for way in (ways if number % 2 else ways[::-1])]
            pairs.append(measured if number % 2 else measured[::-1])
        plain, own = np.array(pairs).T
        ratios = own / plain
        print(f"{path.stat().st_size / 1e6:.0f} MB; saving adds {added / 1e3:.0f} MB to the peak")
        print(f"plain {np.median(plain):.2f} s, checkpoint {np.median(own):.2f} s of CPU time")
        print(f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
