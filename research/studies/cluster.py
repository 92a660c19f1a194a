"""A study on a Slurm cluster: its waiting runs queued as arrays of jobs, told, and followed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import Config
from research.launcher.slurm.options import Options, completed, gpus_of, read_options, refuse_impossible
from research.launcher.slurm.queue import standings, submit
from research.launcher.standing import told
from research.notebooks.execute import find, read_parameters
from research.parameters import yaml_1_2
from research.studies.study import Point, Study, expand, read_study, table
from research.studies.sweep import preflight, reason, refuse_all

if TYPE_CHECKING:
    from research.launcher.slurm.job import Command

LOOK_SECONDS = 5.0  # between two looks at the queue
NODE_LIST = "node-list:0"  # stands for the rendezvous, which a job makes of the nodes that it gets


def sweep_on_slurm(path: str | Path, typed: Mapping[str, Any], dry_run: bool = False, wait: bool = False) -> int:
    """Queue every run of the study in ``path`` that is neither finished nor in the queue, and return an exit code.

    ``typed`` are options of :class:`Options` by name. With ``wait``, follows the runs to their end; 1 when one failed.

    Raises:
        UsageError: every problem of the study, of its runs, and of what is asked of Slurm; nothing is queued then.
    """
    study = read_study(path)
    options = read_options(study.slurm, typed)
    points = [on_nodes(point, options.nodes) for point in expand(study)]
    dirs = [point.dir for point in points]
    known = standings(dirs)
    said = told(dirs, known)
    print(table(points, said))
    left = [point for point in points if point.status["status"] != "finished"]
    queued = [point for point in left if point.dir in known and known[point.dir].active]
    waiting = [point for point in left if point not in queued]
    print(
        f"{len(points)} runs, {len(points) - len(left)} finished, {len(queued)} in the queue, {len(waiting)} to queue"
    )
    looks = [lambda: read_parameters(find(study.notebook)), lambda: preflight(waiting, devices=False)]
    refuse_all(*looks, lambda: refuse_impossible(options, [point.config for point in waiting]))
    if waiting:
        options = refuse_impossible(options, [point.config for point in waiting])
    if not dry_run and waiting:
        print(f"queued: {' '.join(queue(study, Path(path), waiting, options))}")
    return follow(points) if wait and not dry_run else 0


def on_nodes(point: Point, nodes: int) -> Point:
    """``point`` on so many machines.

    Raises:
        UsageError: its batch does not divide into them.
    """
    if nodes == 1:
        return point
    parameters = {**point.parameters, "nodes": nodes}
    return replace(
        point, parameters=parameters, config=Config.load(point.parameters, {"nodes": nodes, "rendezvous": NODE_LIST})
    )


def queue(study: Study, path: Path, points: Sequence[Point], options: Options) -> list[str]:
    """Queue ``points``, those that need the same of a node as one array, and return the ids of the jobs."""
    from research.launcher.slurm.job import Job  # submitit may be missing

    if study.together:
        whole = Options(**{**vars(options), "pack": 1})
        jobs = {Job((command(("sweep", str(path.resolve())), points[0]),)): [point.dir for point in points]}
        return submit(jobs, options, completed(whole, [points[0].config]), study.name)

    def need(point: Point) -> tuple[int, int]:
        return point.config.processes, gpus_of(point.config)

    ids = []
    for _, group in groupby(sorted(points, key=need), key=need):
        alike, jobs = list(group), {}
        for first in range(0, len(alike), options.pack):
            packed = alike[first : first + options.pack]
            commands = tuple(command(words_of(study, point), point) for point in packed)
            jobs[Job(commands)] = [point.dir for point in packed]
        ids += submit(jobs, options, completed(options, [point.config for point in alike]), study.name)
    return ids


def words_of(study: Study, point: Point) -> tuple[str, ...]:
    """What follows ``research`` in the command of one run."""
    return "run", study.notebook, *(f"{key}={yaml_1_2.typed(value)}" for key, value in point.parameters.items())


def command(words: tuple[str, ...], point: Point) -> Command:
    from research.launcher.slurm.job import Command  # submitit may be missing

    return Command(words, str(point.log), point.config.processes, gpus_of(point.config))


def show_status(path: str | Path) -> int:
    """Print how every run of the study in ``path`` stands, here and in Slurm's queue."""
    points = expand(read_study(path))
    print(table(points, told([point.dir for point in points])))
    return 0


def follow(points: Sequence[Point]) -> int:
    """Print every change of how ``points`` stand until none is in the queue; 1 when one of them did not finish."""
    before: dict[Path, str] = {}
    dirs = [point.dir for point in points]
    while True:
        known = standings(dirs)
        now = told(dirs, known)
        for run, words in now.items():
            if before.get(run) != words:
                print(f"{time.strftime('%H:%M:%S')} {run.name}  {words}", flush=True)
        before = now
        if not any(standing.active for standing in known.values()):
            break
        time.sleep(LOOK_SECONDS)
    failed = [point for point in points if point.status["status"] != "finished"]
    for point in failed:
        print(f"failed: {point.dir.name}: {reason(point)}; see {point.log}", file=sys.stderr)
    return 1 if failed else 0
