"""``load_runs`` of one run among many, and of all of them; the metrics of a long run.

    python tests/benchmarks/frames.py [--runs 2000] [--rows 1000000]

CPU time, the least of five repeats. The runs are made without training: 20 epochs, four rows an epoch.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from research.frames import load_runs

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_runs import write_run  # noqa: E402


def milliseconds(work: Callable[[], object], repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, 1e3 * (time.process_time() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(options.runs):
            write_run(folder, f"run-{seed:05d}", epochs=20, seed=seed)
        print(f"one of {options.runs:,}: {milliseconds(lambda: load_runs(folder, 'run-00000')):.1f} ms")
        every = milliseconds(lambda: load_runs(folder))
        print(f"all: {every:,.0f} ms")
        long = write_run(folder / "long", "long")
        with open(long / "metrics.jsonl", "w") as file:
            for step in range(options.rows):
                row = {"kind": "train", "step": step, "epoch": 0, "loss": 1 / (step + 1), "top1": 50.0, "lr": 0.1}
                file.write(json.dumps(row | {"images_per_second": 1e3}) + "\n")
        runs, before = load_runs(long), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = milliseconds(lambda: runs.metrics, repeats=1) / 1e3
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
        print(f"metrics of {options.rows:,} rows: {seconds:.1f} s, {added:,.0f} MB")


if __name__ == "__main__":
    main()
