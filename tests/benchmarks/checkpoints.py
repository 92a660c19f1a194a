"""Cost of a checkpoint of WRN-28-10 with a sparse method, against plain ``torch.save`` of the same tensors.

    OMP_NUM_THREADS=1 python tests/benchmarks/checkpoints.py [--rounds 9]

CPU time in turn, the least of each way, because neighbours only add to it. Memory is what saving adds to the peak of
the process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from research.checkpoints import checkpoint
from research.config import Config
from research.runs.run import Run
from research.training.prepare import prepare


class Row(NamedTuple):
    """A way to save or read: its file (MB), what it adds to the peak (MB), least CPU seconds, their ratio to plain."""

    way: str
    size: float
    peak: float
    seconds: float
    ratio: float


def sparse_run(folder: Path) -> Run:
    """A run of WRN-28-10 with ``set`` after a first step: weights, momentum, masks, and their history."""
    run = Run.create(Config.load({"model": "wrn-28-10", "set": True, "device": "cpu", "runs": str(folder)}))
    prepare(run)
    run.step = run.epoch = run.batch = 0
    run.hooks["set"].epoch_start(run)
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    return run


def state_of(run: Run, **more: Any) -> dict[str, Any]:
    return {"step": 1, "model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), **more}


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measured(rounds: int, folder: Path) -> list[Row]:
    """A row for each way, all in turn ``rounds`` times, in files of the empty ``folder``."""
    torch.set_num_threads(1)
    run = sparse_run(folder)

    def plain() -> Path:
        path = folder / "plain"
        torch.save(state_of(run, history=run.hooks["set"].history), path)
        return path

    def on_disk() -> Path:
        path = plain()
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return path

    def own() -> Path:
        return checkpoint.save(folder, 1, state_of(run, hooks={"set": run.hooks["set"].state_dict()}))

    ways = {"torch.save": plain, "and on the disk": on_disk, "a checkpoint": own}
    sizes, peaks = {}, {}
    for way, save in ways.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sizes[way] = save().stat().st_size / 1e6
        peaks[way] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    least = {way: min(times) for way, times in in_turn(ways, rounds, folder).items()}
    rows = [Row(way, sizes[way], peaks[way], each, each / least["torch.save"]) for way, each in least.items()]
    files = {"torch.load": plain(), "a checkpoint, read": own()}
    reading = {"torch.load": lambda: torch.load(files["torch.load"], weights_only=True)}
    reading["a checkpoint, read"] = lambda: checkpoint.read(files["a checkpoint, read"])
    least = {way: min(times) for way, times in in_turn(reading, rounds).items()}
    return rows + [Row(way, files[way].stat().st_size / 1e6, 0, t, t / least["torch.load"]) for way, t in least.items()]


def in_turn(ways: dict[str, Callable[[], object]], rounds: int, emptied: Path | None = None) -> dict[str, list[float]]:
    """The CPU seconds of each way in every round, before each of which the folder ``emptied`` loses its files."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            for file in emptied.glob("*") if emptied else ():
                if file.is_file():
                    file.unlink()  # each then writes into memory that was as lately freed
            found[way].append(seconds(work))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measured(options.rounds, Path(name))
    print(f"{'':20s} {'MB':>5s} {'peak MB':>8s} {'CPU s':>6s} {'ratio':>6s}")
    for row in rows:
        print(f"{row.way:20s} {row.size:5.0f} {row.peak:8.0f} {row.seconds:6.2f} {row.ratio:6.2f}")


if __name__ == "__main__":
    main()
