"""Where a run stands: what it says of itself, and whether a process still trains it."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

from filelock import FileLock

from research.runs.paths import RunPaths


def status_of(directory: str | os.PathLike) -> dict[str, Any]:
    """``status.json`` of the run in ``directory``, put right where the run could not: killed is ``interrupted``.

    ``status`` is ``new`` (nothing there yet), ``created``, ``running``, ``finished``, ``failed`` or ``interrupted``.
    A run that says it is running is believed while a process holds its lock: in the first seconds, until the process
    has imported what it needs, none does. A process of another machine counts where the file system shares locks.
    """
    said = recorded(directory)
    if said["status"] == "running" and not held(directory):
        said = recorded(directory)  # it may have ended between the two looks, and said how
        if said["status"] == "running":
            return said | {"status": "interrupted"}
    return said


def recorded(directory: str | os.PathLike) -> dict[str, Any]:
    """What ``status.json`` says, as the last process that trained the run left it."""
    paths = RunPaths(directory)
    try:
        return json.loads(paths.status.read_bytes())
    except FileNotFoundError:
        return {"status": "created" if paths.config.exists() else "new"}
    except (OSError, ValueError) as error:
        warnings.warn(f"{paths.status} cannot be read: {error}", stacklevel=2)
        return {"status": "unreadable"}


def held(directory: str | os.PathLike) -> bool:
    """Whether a process trains the run; so too when this cannot be told, in a folder that may only be read.

    Looking takes a free lock for a moment, for which :meth:`research.runs.run.Run.alone` waits.
    """
    lock = RunPaths(directory).lock
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except OSError:  # a Timeout is one
        return True
