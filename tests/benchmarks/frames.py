"""``load_runs`` of one run among many, and of all of them.

    python tests/benchmarks/frames.py [--runs 2000]

CPU time, the least of five repeats. The runs are made without training: 20 epochs, four rows an epoch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from research.frames import load_runs

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_runs import write_run  # noqa: E402


def milliseconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        work()
        best = min(best, 1e3 * (time.process_time() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(options.runs):
            write_run(folder, f"run-{seed:05d}", epochs=20, seed=seed)
        print(f"one of {options.runs:,}: {milliseconds(lambda: load_runs(folder, 'run-00000')):.1f} ms")
        print(f"all: {milliseconds(lambda: load_runs(folder)):,.0f} ms")


if __name__ == "__main__":
    main()
