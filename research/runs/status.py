"""The status of a run: what its own file says, and whether a process still trains it."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock

from research.runs.paths import RunPaths

STATUSES = ("created", "running", "finished", "failed", "interrupted", "unreadable")
COUNTS = ("epoch", "epochs", "step", "steps")
NUMBERS = ("best_top1", "last_top1", "seconds")
TEXTS = ("message", "traceback", "updated")
DIVERGED = "training stopped and the last checkpoint is kept"  # in the message of a run that diverged, and of no other


def status_of(directory: str | os.PathLike) -> dict[str, Any]:
    """``status.json`` of the run in ``directory``, corrected if the run was killed: ``interrupted``.

    ``status`` is ``new`` (nothing there yet), ``created``, ``running``, ``finished``, ``failed`` or ``interrupted``.
    A recorded ``running`` counts only while the launcher or the process that trains the run holds a lock. Processes on
    other machines count if the file system shares locks.
    """
    said = recorded(directory)
    if said["status"] == "running" and not held(directory):
        said = recorded(directory)  # it may have ended between the two looks, and said how
        if said["status"] == "running":
            return said | {"status": "interrupted"}
    return said


def recorded(directory: str | os.PathLike) -> dict[str, Any]:
    """What ``status.json`` says, as the last process that trained the run left it; ``unreadable`` if damaged."""
    paths = RunPaths(directory)
    try:
        said = json.loads(paths.status.read_bytes())
    except FileNotFoundError:
        return {"status": "created" if paths.config.exists() else "new"}
    except (OSError, ValueError, RecursionError) as error:
        warnings.warn(f"{paths.status} cannot be read: {error}", stacklevel=2)
        return {"status": "unreadable"}
    if problem := _problem(said):
        warnings.warn(f"{paths.status} {problem}", stacklevel=2)
        return {"status": "unreadable"}
    return said


def _problem(said: Any) -> str:
    if not isinstance(said, dict) or said.get("status") not in STATUSES:
        return f"has no status that is one of {', '.join(STATUSES)}"
    odd = [n for n in COUNTS if type(said.get(n, 0)) is not int]
    odd += [n for n in NUMBERS if not isinstance(said.get(n), (int, float, type(None)))]
    odd += [n for n in TEXTS if not isinstance(said.get(n, ""), str)]
    return f"has no number or text where one belongs: {', '.join(odd)}" if odd else ""


def held(directory: str | os.PathLike) -> bool:
    """Whether a process trains the run; true as well where that cannot be known, in a read-only folder.

    The check holds a free lock for a moment; :meth:`research.runs.run.Run.alone` waits for that.
    """
    paths = RunPaths(directory)
    return _held(paths.launcher_lock) or _held(paths.lock)


def _held(lock: Path) -> bool:
    if not os.path.lexists(lock):
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except OSError:  # a Timeout is one
        return True
