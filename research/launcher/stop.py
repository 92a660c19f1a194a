"""Ask a run that is being trained, or waits in a queue, to stop: it writes a checkpoint first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from research.launcher.slurm.queue import cancel, held_with, standings
from research.runs.paths import RunPaths
from research.runs.status import status_of


def stop_runs(runs: Sequence[Path]) -> dict[Path, str]:
    """Ask ``runs`` to stop wherever they are, and say of each what was done.

    A job in Slurm's queue is cancelled; one that runs ends when its runs have written checkpoints, all that it holds.

    Raises:
        UsageError: Slurm refuses.
    """
    done, cancelled = {}, set()
    known = standings(runs)
    for run in runs:
        if (standing := known.get(run)) and standing.active:
            if standing.job not in cancelled:
                cancel(standing)
                cancelled.add(standing.job)
            others = [name for name in held_with(run) if name != run.name]
            also = f", with {', '.join(others)} of the same job" if others else ""
            done[run] = f"{'cancelled' if standing.waits else 'asked to stop'}: was {standing}{also}"
        elif trainers := training(run):
            for process in trainers:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            done[run] = f"asked to stop: was running here (process {trainers[0].pid})"
        else:
            done[run] = f"not running: {status_of(run)['status']}"
    return done


def training(run: Path) -> list[psutil.Process]:
    """The processes of this machine that hold the lock of ``run``: whoever trains it, without what that started."""
    lock = RunPaths(run).lock
    holding = [process for process in psutil.process_iter() if has_open(process, lock)]
    return [process for process in holding if process.ppid() not in {other.pid for other in holding}]


def has_open(process: psutil.Process, file: Path) -> bool:
    """Whether ``process`` has ``file`` open; not when it may not be looked at."""
    with suppress(psutil.Error, OSError):
        there = os.stat(file)
        return any(os.path.samestat(there, os.stat(each.path)) for each in process.open_files())
    return False


def sweeping(study: Path) -> Iterator[psutil.Process]:
    """The processes of this machine that run ``research sweep`` on the file ``study``."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            if process.pid != os.getpid() and "sweep" in words:
                named = words[words.index("sweep") + 1 :]
                if any((Path(process.cwd()) / word).resolve() == study.resolve() for word in named):
                    yield process
