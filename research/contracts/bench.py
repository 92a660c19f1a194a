"""Runs of seconds on which promises are tried, and their comparison bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from research.checkpoints import checkpoint
from research.config import Config
from research.runs.metrics import read_rows
from research.runs.pulse import DONE, Pulse
from research.runs.run import Run
from research.training.loop import fit

Make = Callable[..., Config]
"""``make(key=value, …)``: the Config of a run of two epochs on the embedded digits, in a folder of its own."""
SMALL = {"model": "resnet8", "batch_size": 256, "checkpoint_minutes": 0, "log_interval": 2}
CUT = 7  # step after which the power fails: in the second epoch of five steps
CLOCKS = {"seconds", "images_per_second", "data_wait", "peak_memory"}
OF_TRAINING = ("train", "train_epoch", "val")


class NotAsked(Exception):
    """A promise that this one does not make; the message says why."""


class PowerCut(Exception):
    """Training ends, and nothing is saved on the way out."""


class FailingPower(Pulse):
    """Stands where a run's sign of life does, and ends training right after optimizer step ``CUT``."""

    def beat(self, step: int, stage: int, part: int = 0) -> None:
        if step == CUT and stage == DONE:
            raise PowerCut


def trained(config: Config) -> Run:
    """The run of ``config``, trained in this process."""
    return fit(Run.create(config))


def cut_short(run: Run) -> None:
    """Train ``run`` until the power fails."""
    run.pulse = FailingPower()
    try:
        fit(run)
    except PowerCut:
        return
    raise AssertionError(f"the run ended before step {CUT}")


def weights(run: Run) -> dict[str, Tensor]:
    """The weights in the newest checkpoint."""
    return checkpoint.load_newest(run.paths.checkpoints)["model"]


def rows(run: Run) -> list[dict[str, Any]]:
    """The rows of metrics, without notes and times."""
    found = read_rows(run.paths.metrics)
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found if row["kind"] != "note"]


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The same tensors, bit for bit."""
    assert one.keys() == other.keys(), f"tensors differ: {sorted(one.keys() ^ other.keys())[:3]}"
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), f"{name} differs"


def assert_same_run(one: Run, other: Run) -> None:
    """Both runs ended with the same weights and rows, bit for bit."""
    assert_equal(weights(one), weights(other))
    for mine, its in zip(rows(one), rows(other), strict=True):
        assert mine == its, f"a row differs: {mine} and {its}"
