"""What runs will cost: time, GPU hours and disk; from runs made before, else from a few steps of each kind of run."""

from __future__ import annotations

import heapq
import json
import math
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from research.config import Config
from research.errors import UsageError
from research.files import read_json
from research.plugins.scope import with_its_plugins
from research.runs.metrics import newest_rows
from research.runs.paths import RunPaths
from research.runs.status import recorded
from research.studies.shares import Machine
from research.studies.study import Point

ALIKE = (
    "dataset model model_args substitute data_args batch_size accumulation optimizer amp channels_last compile "
    "deterministic sync_bn loader device processes nodes"
).split()  # what an epoch's time depends on; and which methods there are
WEIGHT_BYTES = 4
CHECKPOINTS = 2  # that a run keeps


@dataclass(frozen=True)
class Cost:
    """Seconds of an epoch with its evaluation, and bytes on disk of a finished run."""

    epoch: float
    disk: int


def kind(parameters: Mapping[str, Any]) -> str:
    """What runs of one cost have in common, of a Config as JSON."""
    return json.dumps([[parameters[name] for name in ALIKE], list(parameters["hooks"])], sort_keys=True)


def kind_of(point: Point) -> str:
    return kind(point.config.to_dict())


def costs_before(folders: Iterable[Path]) -> dict[str, Cost]:
    """The cost of every kind of run in ``folders`` of runs: medians of those that have trained for an epoch or more."""
    plain, found = Config().to_dict(), {}
    for folder in set(folders):
        for config in folder.glob(f"*/{RunPaths('').config.name}"):
            said, given = recorded(config.parent), read_json(config, {})
            if isinstance(given, dict) and said.get("epoch") and said.get("seconds"):
                rows = newest_rows(RunPaths(config.parent).metrics)
                evaluation = next((row.get("seconds") for row in rows if row["kind"] == "val"), None) or 0.0
                epoch = said["seconds"] * said["steps"] / (said["step"] * said["epochs"]) + evaluation
                disk = bytes_in(config.parent) if said["status"] == "finished" else 0
                found.setdefault(kind(plain | given), []).append((epoch, disk))
    return {
        which: Cost(statistics.median(epoch for epoch, _ in each), max(disk for _, disk in each))
        for which, each in found.items()
    }


def bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@with_its_plugins
def weights_on_disk(config: Config) -> int:
    """Bytes of a run's checkpoints and best weights: from the size of its network alone, without what methods keep."""
    network = [config.dataset, config.data_args, config.data_root, config.model, config.model_args, config.plugin]
    moments = 2 if config.optimizer == "adamw" else int(config.momentum > 0)
    return WEIGHT_BYTES * _parameters(json.dumps(network), config.loader) * (CHECKPOINTS * (1 + moments) + 1)


@cache
def _parameters(network: str, loader: str) -> int:
    """Numbers in the state of a network, of those parameters of a Config as JSON that decide it."""
    from research.data.choice import check  # torch takes seconds
    from research.models import create_model
    from research.models.dry_run import WithoutInitialValues

    names = ("dataset", "data_args", "data_root", "model", "model_args", "plugin")
    config = replace(Config(batch_size=1, loader=loader), **dict(zip(names, json.loads(network), strict=True)))
    info, arguments = check(config), {**config.model_args}
    for published in ("weights", "pretrained"):  # nothing is fetched here
        arguments.pop(published, None)
    with WithoutInitialValues():
        model = create_model(config.model, info.classes, info.shape, **arguments)
    return sum(tensor.numel() for tensor in model.state_dict().values())


def disk_needed(points: Sequence[Point], costs: Mapping[str, Cost]) -> int:
    """Bytes that ``points`` will add to the disk, beside what they have written already."""
    added = 0
    for point in points:
        known = costs.get(kind_of(point))
        whole = known.disk if known and known.disk else weights_on_disk(point.config)
        added += max(0, whole - (bytes_in(point.dir) if point.dir.is_dir() else 0))
    return added


def refuse_full_disk(points: Sequence[Point], costs: Mapping[str, Cost]) -> None:
    """Raise UsageError when the disk will not do for ``points``."""
    by_folder: dict[Path, list[Point]] = {}
    for point in points:
        by_folder.setdefault(point.dir.parent, []).append(point)
    for folder, there in by_folder.items():
        needed, free = disk_needed(there, costs), free_disk(folder)
        if needed > free:
            raise UsageError(
                f"{folder}: {len(there)} runs will take about {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free; "
                "make room (`research clean`), give another runs=… or fewer runs with --only"
            )


def free_disk(folder: Path) -> int:
    """Free bytes where ``folder`` is or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free


def seconds_left(point: Point, costs: Mapping[str, Cost]) -> float:
    """Seconds that ``point`` still needs; NaN when nothing is known of its kind."""
    known = costs.get(kind_of(point))
    return point.epochs_left * known.epoch if known else math.nan


def longest_first(points: Sequence[Point], costs: Mapping[str, Cost]) -> list[Point]:
    """``points``, the longest first, so that none begins last and alone; equal ones keep their order.

    Of a kind of which nothing is known an epoch counts as long as a middling one of the others.
    """
    middling = statistics.median([known.epoch for known in costs.values()] or [1.0])

    def seconds(point: Point) -> float:
        return point.epochs_left * getattr(costs.get(kind_of(point)), "epoch", middling)

    return sorted(points, key=seconds, reverse=True)


def span(points: Sequence[Point], seconds: Sequence[float], machine: Machine) -> float:
    """Seconds from the start of the first to the end of the last of ``points``, begun in their order on ``machine``."""
    waiting, running, now = list(zip(points, seconds, strict=True)), [], 0.0
    while waiting or running:
        for point, needed in list(waiting):
            if machine.is_full:
                break
            if share := machine.take(point.config):
                waiting.remove((point, needed))
                heapq.heappush(running, (now + needed, id(share), share))
        now, _, share = heapq.heappop(running)
        machine.give_back(share)
    return now


def told(points: Sequence[Point], costs: Mapping[str, Cost], machine: Machine) -> str:
    """What ``points`` will cost, as lines for a person."""
    known = [(point, left) for point in points if not math.isnan(left := seconds_left(point, costs))]
    lines = []
    if known:
        all_points, seconds = zip(*known, strict=True)
        hours = span(all_points, seconds, machine) / 3600
        lines.append(f"time  {_hours(sum(seconds) / 3600)} of runs, {_hours(hours)} with --jobs {machine.jobs}")
        if machine.gpus:
            used = sum(left * machine.need(point.config) for point, left in known) / machine.per_gpu
            lines.append(f"GPUs  {used / 3600:.3g} GPU-hours")
    if len(known) < len(points):
        lines.append(f"time  unknown of {len(points) - len(known)} runs: none of their kind has been trained")
    free = free_disk(points[0].dir.parent)
    lines.append(f"disk  {disk_needed(points, costs) / 1e9:.3g} GB more, of {free / 1e9:.3g} GB free")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{60 * hours:.3g} minutes"
