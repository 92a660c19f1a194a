"""Cost of a checkpoint of WRN-28-10 with a sparse method, against plain ``torch.save`` of the same tensors.

    python tests/benchmarks/checkpoints.py

Before each save the files of the last ones are removed, so that all write into memory that was as lately freed.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pairs import Row, Ways, main, peak_memory, told

from research.checkpoints import checkpoint
from research.config import Config
from research.runs.run import Run
from research.training.prepare import prepare


@cache
def folder() -> tempfile.TemporaryDirectory:
    """Where files are saved."""
    return tempfile.TemporaryDirectory()


@cache
def sparse_run(model: str) -> Run:
    """A run with ``set`` after a first step: weights, momentum, masks, and their history."""
    run = Run.create(Config.load({"model": model, "set": True, "device": "cpu", "runs": f"{folder().name}/runs"}))
    prepare(run)
    run.step = run.epoch = run.batch = 0
    run.hooks["set"].epoch_start(run)
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    return run


def run_of(small: bool) -> Run:
    return sparse_run("wrn-10-1" if small else "wrn-28-10")


def state_of(run: Run, **more: Any) -> dict[str, Any]:
    return {"step": 1, "model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), **more}


def plain(run: Run) -> Path:
    path = Path(folder().name) / "plain"
    torch.save(state_of(run, history=run.hooks["set"].history), path)
    return path


def on_disk(run: Run) -> None:
    with open(plain(run), "rb") as file:
        os.fsync(file.fileno())


def own(run: Run) -> Path:
    return checkpoint.save(Path(folder().name), 1, state_of(run, hooks={"set": run.hooks["set"].state_dict()}))


def emptied() -> None:
    for path in Path(folder().name).iterdir():
        if path.is_file():
            path.unlink()


def saving(small: bool) -> Ways:
    run = run_of(small)
    return Ways(lambda: own(run), lambda: plain(run), emptied)


def saving_to_disk(small: bool) -> Ways:
    run = run_of(small)
    return Ways(lambda: own(run), lambda: on_disk(run), emptied)


def reading(small: bool) -> Ways:
    run = run_of(small)
    emptied()
    ours, theirs = own(run), plain(run)
    return Ways(lambda: checkpoint.read(ours), lambda: torch.load(theirs, weights_only=True))


def size(small: bool) -> Ways:
    run = run_of(small)
    return Ways(lambda: own(run).stat().st_size / 1e6, 320.0, cost=told)


def added_memory(small: bool) -> Ways:
    """What saving adds to the peak of the process, against a tenth of the file; once more adds nothing."""
    run = run_of(small)
    before = peak_memory()
    file = own(run)
    added = peak_memory() - before
    return Ways(lambda: added, 0.1 * file.stat().st_size / 1e6, cost=told)


SUBJECT = "checkpoint, WRN-28-10 with set"
ROWS = [
    Row(f"{SUBJECT}, memory", "a tenth of the file", "<= 1", added_memory, unit="MB"),
    Row(f"{SUBJECT}, saved", "torch.save", "<= 1.3", saving),
    Row(f"{SUBJECT}, saved", "torch.save, on the disk", "<= 1.3", saving_to_disk),
    Row(f"{SUBJECT}, read", "torch.load", "<= 1.3", reading),
    Row(f"{SUBJECT}, size", "320 MB", "<= 1", size, unit="MB"),
]

if __name__ == "__main__":
    main(ROWS, __doc__)
