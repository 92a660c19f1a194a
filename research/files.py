"""Files that are never seen half-written, and new ones that never replace an existing one."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_new(stem: Path, contents: Mapping[str, bytes]) -> Path:
    """Write ``contents`` (suffix such as ``".png"`` -> bytes) beside each other under one free name.

    The name is ``stem``, or ``stem-2``, ``stem-3`` … when any of the files exists; two processes never get the same.
    Returns the stem that was used. Missing folders are created. A file has its name once it is whole, so that a
    process killed at any moment leaves none that is empty.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for free in itertools.chain([stem], (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))):
        if _written(free, contents):
            return free
    raise AssertionError("there is always another number")


def write_atomic(path: Path, data: str | bytes | memoryview) -> None:
    """Make ``data`` the content of ``path`` in one step: readers and power cuts find the old file or the new one."""
    with replaced(path) as part, open(part, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replaced(path: Path, into: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """An empty hidden file beside ``path``, to be filled: it becomes ``path`` in one step, or vanishes on an error.

    A new file gets the permissions that the user's umask gives to any, an existing one keeps its own.
    """
    part = path.with_name(f".{path.name.encode()[:200].decode(errors='ignore')}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = stat.S_IMODE((path if path.exists() else part).stat().st_mode)
        yield part
        with open(part, "rb") as file:  # safetensors puts another file in its place
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        into(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in ``folder`` survive a power cut: files that were made, renamed or removed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_name(path: Path) -> Path:
    """``path``, or with ``-2``, ``-3`` … behind its name while something has that name."""
    names = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def read_json(path: Path, otherwise: Any) -> Any:
    """The JSON in ``path``; ``otherwise`` while it is not there or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return otherwise


def _written(stem: Path, contents: Mapping[str, bytes]) -> bool:
    """Whether every file could be made under this name; none is left where one of the names was taken."""
    mine = []
    for suffix, data in contents.items():
        path = stem.with_name(stem.name + suffix)
        try:
            _write_unless_there(path, data)
        except FileExistsError:
            for made in mine:
                made.unlink()
            return False
        mine.append(path)
    return True


def _write_unless_there(path: Path, data: bytes) -> None:
    """Make ``path`` with this content in one step; FileExistsError where something has the name."""
    if os.path.lexists(path):
        raise FileExistsError(path)
    with replaced(path, into=_linked) as part:
        part.write_bytes(data)


def _linked(part: Path, path: Path) -> None:
    """Give ``part`` its name, unless another process was faster."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the name is taken first, and the content follows
        path.touch(exist_ok=False)
        os.replace(part, path)
    else:
        part.unlink()
