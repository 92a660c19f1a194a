"""Files that are never seen half-written, and new ones that never replace an existing one."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_new(stem: Path, contents: Mapping[str, bytes]) -> Path:
    """Write ``contents`` (suffix such as ``".png"`` -> bytes) beside each other under one free name.

    The name is ``stem``, or ``stem-2``, ``stem-3`` … when any of the files exists; two processes never get the same.
    Returns the stem that was used. Missing folders are created.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for free in itertools.chain([stem], (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))):
        paths = {free.with_name(free.name + suffix): data for suffix, data in contents.items()}
        if _reserve(list(paths)):
            break
    for path, data in paths.items():
        write_atomic(path, data)
    return free


def write_atomic(path: Path, data: str | bytes | memoryview) -> None:
    """Make ``data`` the content of ``path`` in one step: readers and power cuts find the old file or the new one."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def read_json(path: Path, otherwise: Any) -> Any:
    """The JSON in ``path``; ``otherwise`` while it is not there or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return otherwise


def _reserve(paths: list[Path]) -> bool:
    """Create every path empty, or none of them."""
    for done, path in enumerate(paths):
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            for mine in paths[:done]:
                mine.unlink()
            return False
    return True
