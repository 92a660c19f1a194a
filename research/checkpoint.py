"""Checkpoints that survive kill -9, a full disk and bit rot: written aside, renamed whole, checked when read."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from research.errors import UsageError


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as ``folder/<step>-<digest>.pt`` and drop all but the newest ``keep`` files.

    The digest in the name is of the content, so a file says by itself whether it is whole, and the rename publishes
    both at once.

    Raises:
        UsageError: when the disk is full or the folder cannot be written; older checkpoints are left as they were.
    """
    folder.mkdir(exist_ok=True)
    part = folder / f".{step:09d}.part"
    try:
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"{step:09d}-{_digest(part)}.pt"
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        part.unlink(missing_ok=True)
        older = _newest_first(folder)
        kept = f"{older[0].name} is intact and the run continues from it" if older else "none was written before"
        raise UsageError(f"cannot write checkpoint of step {step} to {folder}: {_first_line(error)}; {kept}") from error
    _sync(folder)
    for old in _newest_first(folder)[keep:]:
        old.unlink()
    return path


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest whole checkpoint, or ``None`` without any; damaged ones are passed over with a warning."""
    for path in _newest_first(folder):
        try:
            if _digest(path) != path.stem.partition("-")[2]:
                raise OSError("its content does not match its digest")
            return torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # whatever is wrong with one file, the one before it may be whole
            warnings.warn(f"checkpoint {path} is damaged ({_first_line(error)}); using the one before", stacklevel=2)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
