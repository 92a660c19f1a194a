"""``python -m research.studies.forecast.probe FOLDER RESULT``: first steps, which tell what a run costs."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from research.config import Config
from research.config.config import CHECKED
from research.launcher.warm import Command, Server
from research.plugins.scope import with_its_plugins
from research.plugins.source import keep
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.studies.forecast.estimate import CHECKPOINTS, Cost, bytes_in, kind_of
from research.studies.study import Point
from research.training.checkpointing import save
from research.training.loop import closing, train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare

STEPS, SECONDS = 20, 20.0  # whichever comes first, but 3 steps
WARM = 2  # first steps, which load and compile
FORWARD = 1 / 3  # of a training step's time: the backward pass costs twice the forward one


class FirstBatches:
    """The first batches of a loader, with the time that each was asked for."""

    def __init__(self, loader: Any):
        self.loader, self.times = loader, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        begun = time.perf_counter()
        for batch in itertools.islice(self.loader, STEPS):
            self.times.append(time.perf_counter())
            yield batch
            if len(self.times) > WARM and self.times[-1] - begun > SECONDS:
                break
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


@with_its_plugins
def probe(config: Config) -> dict[str, float]:
    """Seconds of an epoch (``epoch``) and bytes of a finished run (``disk``), from the first steps of one process.

    Of several processes one is tried with its share of a batch: what they tell each other is not in the time.
    """
    processes = config.processes * config.nodes
    with tempfile.TemporaryDirectory() as folder:
        alone = replace(
            config, processes=1, nodes=1, batch_size=config.batch_size // processes, runs=folder, name="probe"
        )
        run = Run.create(alone)
        with closing(run):
            prepare(run)
            meter = Meter(run)
            run.train_loader.set_epoch(0)
            for hook in run.hooks.values():
                hook.epoch_start(run)
            run.train_loader = batches = FirstBatches(run.train_loader)
            train_epoch(run, meter)
            times = batches.times[min(WARM, len(batches.times) - 2) :]
            step = statistics.median(later - sooner for sooner, later in itertools.pairwise(times))
            save(run, meter)
            checkpoint = bytes_in(run.paths.checkpoints)
            weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
            info = run.val_loader.info
            steps = run.steps_per_epoch // processes
            evaluation = info.val / processes / alone.batch_size * step * FORWARD
    return {"epoch": steps * step + evaluation, "disk": CHECKPOINTS * checkpoint + weights}


def probe_kinds(points: Sequence[Point], known: Collection[str], server: Server) -> dict[str, Cost]:
    """The cost of each kind of run among ``points`` that is not ``known``, each probed by itself in a process.

    One that cannot be tried, because it starts from a run that is not trained yet, stays unknown.
    """
    new = {which: point for point in points if (which := kind_of(point)) not in known}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for which, point in tqdm(new.items(), desc="probe", unit="kind", leave=False):
            paths, result, printed = RunPaths(folder), Path(folder, "result.json"), Path(folder, "printed.txt")
            keep(point.config.plugin, paths.plugins)
            paths.config.write_text(json.dumps(point.config.to_dict()))
            command = Command(__name__, [folder, str(result)], os.environ | {CHECKED: "1"}, printed)
            if server.start(command).wait() == 0:
                found[which] = Cost(**json.loads(result.read_bytes()))
    return found


if __name__ == "__main__":
    folder, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(probe(Run.open(folder).config)))
