"""Run a study here: each run a notebook of its own, several at a time; what is finished is skipped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from research.config.config import CHECKED, restated
from research.errors import UsageError
from research.notebooks.execute import find, read_parameters
from research.parameters import yaml_1_2
from research.processes import DIE_WITH_PARENT
from research.studies.shares import Machine, Share
from research.studies.study import Point, Study, expand, read_study, table

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0  # for the checkpoints, when a sweep is interrupted


def sweep(path: str | Path, jobs: int = 1, dry_run: bool = False, per_gpu: int = 1) -> int:
    """Run the study in ``path``, ``jobs`` runs at a time, and return an exit code: 1 when some run failed.

    Runs that go at the same time share the cores, the memory and the GPUs of this machine, ``per_gpu`` runs a GPU.

    Everything is checked before anything starts. Finished runs are skipped and interrupted ones resumed; one failure
    does not stop the others. Ctrl-C ends every child; the same command continues. A study ``together`` is trained in
    this process, without notebooks and one job.

    Raises:
        UsageError: every problem of the file and of any of its runs.
    """
    for option, number in (("--jobs", jobs), ("--per-gpu", per_gpu)):
        if number < 1:
            raise UsageError(f"{option} {number}: must be >= 1")
    study = read_study(path)
    points = expand(study)
    print(table(points))
    waiting = [point for point in points if point.status["status"] != "finished"]
    print(f"{len(points)} runs, {len(points) - len(waiting)} finished, {len(waiting)} to run")
    if study.together:
        refuse_options(jobs, per_gpu)
        return fit_together(study, points, dry_run)
    machine = Machine.here(max(1, min(jobs, len(waiting))), per_gpu)
    refuse_all(
        lambda: read_parameters(find(study.notebook)),
        partial(preflight, waiting),
        partial(machine.refuse, [point.config for point in waiting]),
    )
    if dry_run or not waiting:
        return 0
    with interruptible():
        failed = execute_all(study.notebook, waiting, machine)
    for point in failed:
        print(f"failed: {point.dir.name}: {reason(point)}; see {point.log}", file=sys.stderr)
    return 1 if failed else 0


def refuse_options(jobs: int, per_gpu: int) -> None:
    """Raise UsageError for options that cannot act on a study that trains in one process."""
    given = [(option, number) for option, number in (("--jobs", jobs), ("--per-gpu", per_gpu)) if number > 1]
    if given:
        raise UsageError(
            "\n".join(
                f"{option} {number}: a study with together=true is one process; leave it out"
                for option, number in given
            )
        )


def fit_together(study: Study, points: list[Point], dry_run: bool) -> int:
    """Train a study's networks in this process: dense MLPs as a population, all others one after another."""
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
    if dry_run:
        return 0
    with interruptible():
        if stacked:
            fit_population(stacked, study.ldi)
        failures = fit_each(waiting)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def fit_each(points: list[Point]) -> list[str]:
    """Train every point in this process, one after another; what failed, a line each."""
    from research.runs.run import Run  # torch takes seconds
    from research.studies.population import threads
    from research.training.loop import fit

    failures = []
    with tqdm(points, unit="run", desc="sweep", disable=not points) as bar:
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


def preflight(points: list[Point]) -> None:
    """Look at data, devices and existing run directories, as each run would; nothing has been started yet.

    Raises:
        UsageError: every problem of every point.
    """
    from research.runs.run import Run  # torch takes seconds
    from research.training.preflight import preflight as preflight_run

    looks: list[Callable[[], object]] = []
    looked, coming = set(), {point.dir for point in points}
    for point in points:
        looks.append(Run(point.dir, point.config).refuse_another)
        alike = repr(replace(point.config, seed=0, order_seed=None, name="", lr=1.0, min_lr=0.0))
        if alike not in looked:  # seeds and learning rates make no difference to what a run needs
            looked.add(alike)
            looks.append(partial(in_words_of, point, partial(preflight_run, point.config, coming)))
    refuse_all(*looks)


def in_words_of(point: Point, look: Callable[[], object]) -> None:
    """Let ``look`` refuse in the words that the study gives the point with."""
    try:
        look()
    except UsageError as error:
        raise UsageError(restated(str(error), point.parameters)) from None


def execute_all(notebook: str, points: list[Point], machine: Machine) -> list[Point]:
    """Run every point under one bar, as many at a time as ``machine`` holds; the points that failed."""
    failed, queue, running = [], list(points), []
    already = {point.dir: point.status.get("epoch", 0) for point in points}
    left = {point.dir: point.config.total_epochs - already[point.dir] for point in points}
    settled = 0
    with tqdm(total=sum(left.values()), unit="epoch", desc="sweep", mininterval=1.0) as bar:
        try:
            while queue or running:
                for point in list(queue):
                    if share := machine.take(point.config):
                        queue.remove(point)
                        running.append((point, start(notebook, point, share), share))
                for point, process, share in [each for each in running if each[1].poll() is not None]:
                    running.remove((point, process, share))
                    machine.give_back(share)
                    settled += left[point.dir]
                    failed += [point] if process.returncode else []
                    bar.write(f"{'FAILED  ' if process.returncode else 'finished'} {point.dir.name}{outcome(point)}")
                now = settled + sum(point.status.get("epoch", 0) - already[point.dir] for point, *_ in running)
                bar.update(max(0, now - bar.n))
                done = len(points) - len(queue) - len(running)
                bar.set_postfix_str(f"{done}/{len(points)} runs, {len(failed)} failed", refresh=False)
                time.sleep(POLL_SECONDS)
        finally:
            stop([process for _, process, _ in running])
    return failed


def start(notebook: str, point: Point, share: Share) -> subprocess.Popen:
    """``research run`` for one point, in a process group of its own; what it prints goes to the point's log."""
    words = [f"{key}={yaml_1_2.typed(value)}" for key, value in point.parameters.items()]
    if "threads" not in point.parameters:
        words.append(f"threads={share.threads}")
    point.log.parent.mkdir(parents=True, exist_ok=True)
    with open(point.log, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "research", "run", notebook, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | share.environment | {DIE_WITH_PARENT: "SIGTERM", CHECKED: "1"},
            start_new_session=True,
        )


def stop(processes: list[subprocess.Popen]) -> None:
    """Let every run write a checkpoint and end; no answer in time, or a second Ctrl-C, kills them."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def outcome(point: Point) -> str:
    best = point.status.get("best_top1")
    return "" if best is None else f"  best top-1 {best:.2f} %"


def reason(point: Point) -> str:
    """Why a point failed, in one line: what its run says, else the last line it printed."""
    said = point.status.get("message") or point.log.read_text(errors="replace").strip()
    return said.splitlines()[-1] if said else "no output"


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
