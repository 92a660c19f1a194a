"""How training ends, and what is then on record: finished, failed, or asked to stop by a signal."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from research.distributed import lost_a_peer
from research.errors import UsageError
from research.processes import STOPPED
from research.runs.run import Run

ASKED = "asked to stop; the same command continues it"


@contextmanager
def outcome_recorded(run: Run) -> Iterator[None]:
    """Keep ``status.json`` true from the first moment to the last, however training ends (kill -9 excepted)."""
    try:
        if run.rank == 0:
            run.set_status("running")
        yield
        if run.rank == 0:
            run.set_status("finished")
    except BaseException as error:
        told = record_failure(run, error)
        if told is error:
            raise
        raise told from error


def record_failure(run: Run, error: BaseException) -> BaseException:
    """Write into the run's status that ``error`` ended its training; the error as a user is to see it."""
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        if run.rank == 0:
            with suppress(OSError):
                run.set_status("interrupted", message=ASKED)
    elif isinstance(error, Exception):  # of any rank: the first cause counts, not the peers that it took along
        error = of_the_place(run, error)
        if not lost_a_peer(error):
            usage, lines = isinstance(error, UsageError), traceback.format_exception(error)
            with suppress(OSError):  # a full disk must not hide what went wrong
                run.set_status("failed", message=str(error), usage=usage, traceback="".join(lines))
    return error


def of_the_place(run: Run, error: Exception) -> Exception:
    """What a user is told when ``error`` is about the disk, or about one of the run's own files; else ``error``."""
    if not isinstance(error, OSError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UsageError(f"disk full while training {run.name} ({error}); the same command continues it")
    names = [Path(os.fsdecode(name)) for name in (error.filename2, error.filename) if isinstance(name, (str, bytes))]
    own = [name for name in names if run.dir.resolve() in name.resolve().parents]
    if not own:
        return error
    return UsageError(f"cannot use {own[0]}: {error.strerror}; put it right, and the same command continues the run")


class Stopped(SystemExit):
    """Training was asked to stop and has written a checkpoint; exit code 143, as after SIGTERM."""

    def __init__(self) -> None:
        super().__init__(STOPPED)
