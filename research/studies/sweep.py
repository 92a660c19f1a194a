"""Run a study here: each run a notebook of its own, several at a time; what is finished is skipped."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.config.config import restated
from research.errors import Failure, UsageError
from research.launcher.warm import Server
from research.notebooks.execute import find, read_parameters
from research.studies.execution import PRELOADED, Execution, reason
from research.studies.forecast.estimate import costs_before, longest_first, refuse_full_disk, told
from research.studies.forecast.power import in_sight
from research.studies.shares import Machine
from research.studies.show import outcome
from research.studies.stages import Stage, stages
from research.studies.study import Point, Study, table
from research.terminal import bar_class, output_kind


def sweep(
    path: str | Path,
    jobs: int = 1,
    dry_run: bool = False,
    per_gpu: int = 1,
    retry: int = 0,
    only: str = "",
    probe: bool = False,
    confirm: bool = False,
) -> int:
    """Run the study in ``path``, ``jobs`` runs at a time, and return an exit code: 1 when some run failed.

    Runs that go at the same time share the cores, the memory and the GPUs of this machine, ``per_gpu`` runs a GPU. A
    run that fails is tried again ``retry`` times. ``only`` is a pattern of names, such as ``*-seed-0``. The longest
    runs go first, by what earlier ones took. ``dry_run`` only tells what would run and what it will cost; ``probe``
    then tries a few steps of each kind of run of which none was made before. ``confirm`` runs the arms of its contrasts
    on fresh seeds, see :func:`research.studies.plan.confirmation`. A study that selects has two stages: what chooses,
    then the runs at what was chosen.

    Everything is checked before anything starts. Finished runs are skipped and interrupted ones resumed; one failure
    does not stop the others. Ctrl-C ends every child; the same command continues. A study ``together`` is trained in
    this process, without notebooks and one job.

    Raises:
        UsageError: every problem of the file and of any of its runs.
        Failure: nothing could be chosen for an arm.
    """
    for option, number, least in (("--jobs", jobs, 1), ("--per-gpu", per_gpu, 1), ("--retry", retry, 0)):
        if number < least:
            raise UsageError(f"{option} {number}: must be >= {least}")
    for stage in stages(path, only, confirm, ahead=dry_run):
        code = run_stage(stage, jobs, dry_run, per_gpu, retry, probe)
        if code and not stage.chooses:  # what chooses may diverge: the next stage tells whether there is a choice
            return code
    return 0


def run_stage(stage: Stage, jobs: int, dry_run: bool, per_gpu: int, retry: int, probe: bool) -> int:
    """Run the points of a stage; see :func:`sweep`."""
    study, points = stage.study, stage.points
    print(table(points))
    waiting = [point for point in points if point.status["status"] != "finished"]
    print(f"{len(points)} runs, {len(points) - len(waiting)} finished, {len(waiting)} to run")
    if dry_run and not stage.chooses and (seen := in_sight(study, stage.first)):
        print(seen)
    if study.together:
        refuse_options({"--jobs": jobs > 1, "--per-gpu": per_gpu > 1, "--retry": retry > 0})
        return fit_together(study, points, None if dry_run else stage.begin)
    costs = costs_before({point.dir.parent for point in points})
    with nullcontext() if not waiting or (dry_run and not probe) else closing(Server(PRELOADED)) as server:
        machine = Machine.here(max(1, min(jobs, len(waiting))), per_gpu)
        with machine.reckoned():
            refuse_all(
                lambda: read_parameters(find(study.notebook)),
                partial(preflight, waiting),
                partial(machine.refuse, [point.config for point in waiting]),
            )
        if not waiting:
            return 0
        refuse_full_disk(waiting, costs)
        if dry_run:
            if probe:
                from research.studies.forecast.probe import probe_kinds  # torch takes seconds

                costs |= probe_kinds(waiting, costs, server)
            print(told(waiting, costs, machine))
            return 0
        stage.begin()
        with interruptible():
            failed = Execution(study.notebook, longest_first(waiting, costs), machine, server, retry).run()
    for point in failed:
        print(f"failed: {point.dir.name}: {reason(point)}; see {point.log}", file=sys.stderr)
    return 1 if failed else 0


def refuse_options(given: Mapping[str, bool]) -> None:
    """Raise UsageError for options that cannot act on a study that trains in one process."""
    if problems := [
        f"{name}: a study with together=true is one process; leave it out" for name in given if given[name]
    ]:
        raise UsageError("\n".join(problems))


def fit_together(study: Study, points: list[Point], begin: Callable[[], object] | None) -> int:
    """Train a study's networks in this process: dense MLPs as a population, all others one after another.

    ``begin`` is called once all is checked; without it nothing is trained.
    """
    from research.studies.population import MODEL, fit_population, stackable  # torch takes seconds

    stacked = [point.config for point in points if point.config.model == MODEL]
    alone = [point for point in points if point.config.model != MODEL]

    def refuse_alone() -> None:
        """What networks that are not stacked cannot have here."""
        problems = [f"ldi={list(study.ldi)}: is measured of {MODEL} networks only"] if study.ldi and alone else []
        for name, point in itertools.product(("processes", "nodes"), alone):
            if (given := getattr(point.config, name)) > 1:
                problems.append(f"{name}={given}: networks that are trained in one process need {name}=1")
        if problems:
            raise UsageError("\n".join(problems))

    waiting = [point for point in alone if point.status["status"] != "finished"]
    refuse_all(refuse_alone, partial(stackable, stacked), partial(preflight, waiting))
    if not begin:
        return 0
    begin()
    with interruptible():
        failures = []
        if stacked:
            try:
                fit_population(stacked, study.ldi)
            except Failure as error:
                failures = str(error).splitlines()
        failures += fit_each(waiting)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def fit_each(points: list[Point]) -> list[str]:
    """Train every point in this process, one after another; what failed, a line each."""
    from research.runs.run import Run  # torch takes seconds
    from research.studies.population import threads
    from research.training.loop import fit

    failures = []
    with bar_class()(points, unit="run", desc="sweep", disable=not points or output_kind() == "text") as bar:
        for point in bar:
            try:
                with threads(point.config.threads):
                    fit(Run.create(point.config))
            except Exception as error:  # of one run; its status has the traceback, and the others go on
                failures.append(f"{point.dir.name}: {' '.join(str(error).split()) or type(error).__name__}")
                bar.write(f"FAILED   {point.dir.name}")
            else:
                bar.write(f"finished {point.dir.name}{outcome(point)}")
    return failures


def refuse_all(*looks: Callable[[], object]) -> None:
    """Raise one UsageError with what each of ``looks`` refuses."""
    problems = []
    for look in looks:
        try:
            look()
        except UsageError as error:
            problems += str(error).splitlines()
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))


def preflight(points: list[Point], devices: bool = True) -> None:
    """Look at data, ``devices`` and existing run directories, as each run would; nothing has been started yet.

    Raises:
        UsageError: every problem of every point.
    """
    from research.runs.run import Run  # torch takes seconds
    from research.training.preflight import preflight as preflight_run

    looks: list[Callable[[], object]] = []
    looked, coming = set(), {point.dir for point in points}
    for point in points:
        looks.append(Run(point.dir, point.config).refuse_another)
        alike = repr(replace(point.config, seed=0, order_seed=None, mask_seed=None, name="", lr=1.0, min_lr=0.0))
        if alike not in looked:  # seeds and learning rates make no difference to what a run needs
            looked.add(alike)
            looks.append(partial(in_words_of, point, partial(preflight_run, point.config, coming, devices)))
    refuse_all(*looks)


def in_words_of(point: Point, look: Callable[[], object]) -> None:
    """Let ``look`` refuse in the words that the study gives the point with."""
    try:
        look()
    except UsageError as error:
        raise UsageError(restated(str(error), point.parameters)) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM, and SIGINT also where a shell's ``&`` ignores it, end a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
