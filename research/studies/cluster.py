"""A study on a Slurm cluster: its waiting runs queued as arrays of jobs, told, and followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import UsageError
from research.launcher.slurm.cluster import refuse_impossible
from research.launcher.slurm.one import on_nodes as config_on_nodes
from research.launcher.slurm.options import Options, completed, gpus_of, read_options
from research.launcher.slurm.queue import standings, submit
from research.launcher.standing import follow, told
from research.notebooks.execute import find, read_parameters
from research.studies.forecast.power import in_sight
from research.studies.plan import confirming
from research.studies.selection import trials, untold
from research.studies.stages import Stage, chosen, stages
from research.studies.study import Point, Study, expand, read_study, table
from research.studies.sweep import preflight, refuse_all

if TYPE_CHECKING:
    from research.launcher.slurm.job import Command


def sweep_on_slurm(
    path: str | Path,
    typed: Mapping[str, Any],
    dry_run: bool = False,
    wait: bool = False,
    only: str = "",
    confirm: bool = False,
) -> int:
    """Queue every run of the study in ``path`` that is neither finished nor in the queue, and return an exit code.

    ``typed`` are options of :class:`Options` by name, ``only`` a pattern of names; ``confirm`` as in
    :func:`research.studies.sweep.sweep`. With ``wait``, follows the runs to their end; 1 when one failed.

    Raises:
        UsageError: every problem of the study, of its runs, and of what is asked of Slurm; nothing is queued then.
    """
    whole = (
        "sweep",
        str(Path(path).resolve()),
        *(("--only", only) if only else ()),
        *(["--confirm"] if confirm else []),
    )
    for stage in stages(path, only, confirm, ahead=dry_run):
        failed = queue_stage(stage, whole, read_options(stage.study.slurm, typed), dry_run, wait)
        if stage.chooses and not (wait or dry_run):
            print("the same command queues the runs at what these choose, once they have ended")
            return 0
    return 1 if failed else 0


def queue_stage(stage: Stage, whole: tuple[str, ...], options: Options, dry_run: bool, wait: bool) -> list[Path]:
    """Queue the points of a stage; see :func:`sweep_on_slurm`. What failed, with ``wait``."""
    study = stage.study
    points = [*stage.points, *(stage.then if study.together else ())]  # one job trains both
    points = [on_nodes(point, options.nodes) for point in points]
    dirs = [point.dir for point in points]
    known = standings(dirs)
    said = told(dirs, known)
    print(table(points, said))
    left = [point for point in points if point.status["status"] != "finished"]
    queued = [point for point in left if point.dir in known and known[point.dir].active]
    waiting = [point for point in left if point not in queued]
    finished = len(points) - len(left)
    print(f"{len(points)} runs, {finished} finished, {len(queued)} in the queue, {len(waiting)} to queue")
    if waiting:
        possible = partial(refuse_impossible, options, [point.config for point in waiting])
        refuse_all(lambda: read_parameters(find(study.notebook)), partial(preflight, waiting, False), possible)
        options = possible()
    if dry_run and not stage.chooses and (seen := in_sight(study, stage.first)):
        print(seen)
    if waiting and not dry_run:
        stage.begin()
        print(f"queued: {' '.join(queue(study, whole, waiting, options))}")
    return follow(dirs) if wait and not dry_run else []


def on_nodes(point: Point, nodes: int) -> Point:
    """``point`` on so many machines; UsageError when its batch does not divide into them."""
    if nodes == 1:
        return point
    return replace(
        point, parameters={**point.parameters, "nodes": nodes}, config=config_on_nodes(point.parameters, nodes)
    )


def queue(study: Study, whole: tuple[str, ...], points: Sequence[Point], options: Options) -> list[str]:
    """Queue ``points``, those that need the same of a node as one array, and return the ids of the jobs.

    ``whole`` is the command that trains a study which is to be trained together.
    """
    from research.launcher.slurm.job import Job  # submitit may be missing

    if study.together:
        if options.pack > 1:
            raise UsageError(f"pack={options.pack}: a study with together=true is one process; leave it out")
        jobs = {Job((command(whole, points[0]),)): [point.dir for point in points]}
        return submit(jobs, options, completed(options, [points[0].config]), study.name)

    def need(point: Point) -> tuple[int, int]:
        return point.config.processes, gpus_of(point.config)

    ids = []
    for _, group in groupby(sorted(points, key=need), key=need):
        alike, jobs = list(group), {}
        for first in range(0, len(alike), options.pack):
            packed = alike[first : first + options.pack]
            commands = tuple(command(("run", study.notebook, *point.words), point) for point in packed)
            jobs[Job(commands)] = [point.dir for point in packed]
        ids += submit(jobs, options, completed(options, [point.config for point in alike]), study.name)
    return ids


def command(words: tuple[str, ...], point: Point) -> Command:
    from research.launcher.slurm.job import Command  # submitit may be missing

    return Command(words, str(point.log), point.config.processes, gpus_of(point.config))


def show_status(path: str | Path, only: str = "", confirm: bool = False) -> int:
    """Print how every run of the study in ``path`` stands, here and in Slurm's queue; or those that ``confirm`` it."""
    study = read_study(path)
    tried = trials(study)
    own = [trial.point for trial in tried] + expand(study, untold(tried))
    points = chosen(confirming(study, untold(tried)) if confirm else own, only)
    print(table(points, told([point.dir for point in points])))
    return 0
