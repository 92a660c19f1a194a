"""How training ends, and what is then on record: finished, failed, or asked to stop by a signal."""

from __future__ import annotations

import errno
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from research.distributed import lost_a_peer
from research.errors import UsageError
from research.runs.run import Run

ASKED = "asked to stop; the same command continues it"


@contextmanager
def outcome_recorded(run: Run) -> Iterator[None]:
    """Keep ``status.json`` true from the first moment to the last, however training ends (kill -9 excepted)."""
    if run.rank == 0:
        run.set_status("running")
    try:
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
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error = UsageError(f"disk full while training {run.name} ({error}); the same command continues it")
        if not lost_a_peer(error):
            usage, lines = isinstance(error, UsageError), traceback.format_exception(error)
            with suppress(OSError):  # a full disk must not hide what went wrong
                run.set_status("failed", message=str(error), usage=usage, traceback="".join(lines))
    return error


class Stopped(SystemExit):
    """Training was asked to stop and has written a checkpoint; exit code 143, as after SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)
