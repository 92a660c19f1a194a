"""``load_runs`` of one run among many, and of all of them; the metrics of a long run, and the memory that they take.

    python tests/benchmarks/frames.py

The runs are made without training: 20 epochs, four rows an epoch. Limits for 2,000 runs and for 1,000,000 rows are
scaled to what is measured.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from functools import cache
from pathlib import Path

from pairs import Row, Ways, main, peak_memory, told

from research.frames import load_runs

sys.path.insert(0, str(Path(__file__).parents[1]))
from synthetic_runs import write_run  # noqa: E402

RUNS, ROWS_OF_METRICS = 2000, 250_000


@cache
def many(runs: int) -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    for seed in range(runs):
        write_run(Path(folder.name), f"run-{seed:05d}", epochs=20, seed=seed)
    return folder


@cache
def long(rows: int) -> tempfile.TemporaryDirectory:
    """A folder with one run that has ``rows`` rows of metrics."""
    folder = tempfile.TemporaryDirectory()
    with open(write_run(Path(folder.name), "long") / "metrics.jsonl", "w") as file:
        for step in range(rows):
            row = {"kind": "train", "step": step, "epoch": 0, "loss": 1 / (step + 1), "top1": 50.0, "lr": 0.1}
            file.write(json.dumps(row | {"images_per_second": 1e3}) + "\n")
    return folder


def one(small: bool) -> Ways:
    runs = RUNS // 100 if small else RUNS
    return Ways(lambda: load_runs(many(runs).name, "run-00000"), 0.005)


def everything(small: bool) -> Ways:
    runs = RUNS // 100 if small else RUNS
    return Ways(lambda: load_runs(many(runs).name), 0.4 * runs / RUNS)


def metrics(small: bool) -> Ways:
    rows = ROWS_OF_METRICS // 100 if small else ROWS_OF_METRICS
    return Ways(lambda: load_runs(long(rows).name).metrics, 2 * rows / 1e6)


def added_memory(folder: str) -> float:
    """MB that reading all metrics adds to the peak of this process."""
    runs, before = load_runs(folder), peak_memory()
    assert len(runs.metrics)
    return peak_memory() - before


def memory(small: bool) -> Ways:
    rows = ROWS_OF_METRICS // 100 if small else ROWS_OF_METRICS

    def alone() -> float:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(added_memory, (long(rows).name,))

    return Ways(alone, 400 * rows / 1e6, cost=told)


ROWS = [
    Row("load_runs, one of 2,000", "5 ms", "<= 1", one),
    Row("load_runs, all of 2,000", "0.4 s", "<= 1", everything),
    Row("metrics of 250,000 rows", "2 s a million", "<= 1", metrics),
    Row("memory of these metrics", "0.4 GB a million", "<= 1", memory, unit="MB"),
]

if __name__ == "__main__":
    main(ROWS, __doc__)
