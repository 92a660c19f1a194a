"""Schedule files of sparse training's seed: learning rates, rewiring periods and temperatures by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from research.errors import UsageError, nearest
from research.parameters.yaml_1_2 import plain, read


class Schedule(NamedTuple):
    """What a schedule file holds: values by epoch."""

    lr: str
    period: str
    temperature: str


_MNIST = Schedule("0:0.1 25:0.02 50:0.004 75:0.0008", "0:100 25:200 50:400 75:800", "0:1e-3 25:1e-4 50:1e-5 75:1e-6")
_WRN = Schedule(
    "0:0.1 60:0.02 120:0.004 160:0.0008", "0:100 25:200 80:400 140:800", "0:1e-5 25:1e-8 80:1e-12 140:1e-15"
)
_RESNET = Schedule(
    "0:0.1 30:0.01 60:0.001 90:0.0001", "0:1000 25:2000 50:4000 75:8000", "0:1e-5 25:1e-8 50:1e-12 75:1e-15"
)
SCHEDULES = {
    "mnist_schedule": _MNIST,
    "prune_schedule_mnist": _MNIST._replace(lr="0:0 1:0.02 10:0.02 20:0.004 30:0.0008"),
    "wrnet_schedule": _WRN,
    "wrnet_schedule_long": _WRN._replace(lr="0:0.1 120:0.02 220:0.004 350:0.0008"),
    "wrnet_prune_schedule": _MNIST._replace(lr="0:0 1:0.02 15:0.02 25:0.004 35:0.0008"),
    "resnet_schedule": _RESNET,
    "resnet_schedule_long": Schedule(
        "0:0.1 60:0.01 120:0.001 180:0.0001",
        "0:1000 60:2000 120:4000 180:8000",
        "0:1e-5 50:1e-8 100:1e-12 150:1e-15",
    ),
    "resnet_prune_schedule": _MNIST._replace(lr="0:0 1:0.01 15:0.01 25:0.001 35:0.0001"),
}
"""The files that the seed's experiments name; built in, so that a command needs no file."""


def find_schedule(name: str) -> Schedule:
    """The schedule of a file, or of the built-in one of that name.

    Raises:
        UsageError: there is neither, or the file holds something else.
    """
    path = Path(name)
    if not path.is_file():
        if path.stem in SCHEDULES:
            return SCHEDULES[path.stem]
        raise UsageError(f"schedule_file={name}: no such file{nearest(path.stem, SCHEDULES)}")
    try:
        content = plain(read(path))
        lists = (content[key] for key in ("lr_schedule", "rewire_period_schedule", "DeepR_temperature_schedule"))
        tables = [" ".join(f"{epoch}:{value}" for pair in table for epoch, value in pair.items()) for table in lists]
    except (UsageError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"schedule_file={name}: expected lists lr_schedule, rewire_period_schedule and DeepR_temperature_schedule "
            f"of {{epoch: value}} ({str(error).partition(chr(10))[0]})"
        ) from None
    return Schedule(*tables)
