"""Checkpoints that survive kill -9, a full disk and bit rot: written aside, renamed whole, checked when read."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from research.checkpoints.bits import packed, unpacked
from research.errors import UsageError
from research.files import free_name, replaced, sync_folder

ASIDE = "damaged-"  # before the name of a file that was whole once
SUMS = "crc-"  # before a digest of the checksums of a file's parts


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as ``folder/<step>-<digest>.pt`` and drop all but the newest ``keep`` files up to this step.

    The digest in the name is that of the content: the name tells whether the file is whole, and one rename publishes
    both. Files of later steps are never dropped.

    Raises:
        UsageError: when the disk is full or the folder cannot be written; older checkpoints are left as they were.
    """
    try:
        path = _write(folder, step, state)
    except OSError as error:
        older = _newest_first(folder)
        kept = f"{older[0].name} is intact and the run continues from it" if older else "none was written before"
        raise UsageError(f"cannot write checkpoint of step {step} to {folder}: {error.strerror}; {kept}") from error
    up_to_now = [old for old in _newest_first(folder) if old != path and step_of(old.name) <= step]
    for old in up_to_now[keep - 1 :]:
        old.unlink(missing_ok=True)
    return path


def _write(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Stream ``state`` to its file, in no more memory than one tensor; the file is named when its digest is known."""
    folder.mkdir(exist_ok=True)
    named = Path()

    def publish(part: Path, _: Path) -> None:
        nonlocal named
        with open(part, "rb") as file:
            named = folder / f"{step:09d}-{_digest_of_sums(file)}.pt"
        os.replace(part, named)

    with replaced(folder / f"{step:09d}.pt", into=publish) as part, open(part, "wb") as file:
        stream = _Stream(file)
        torch.save(packed(state), stream)
        stream.check()
    return named


class _Stream:
    """A file to write to; an error waits for :meth:`check`, because torch would lose it."""

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, content: bytes | memoryview) -> int:
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """Nothing: the file is flushed once, at its end."""

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def _digest_of_sums(file: BinaryIO) -> str:
    """The digest of the end of a checkpoint, a list of its parts with the CRC-32 that torch has made of each."""
    file.seek(zipfile.ZipFile(file).start_dir)
    return SUMS + hashlib.blake2b(file.read(), digest_size=16).hexdigest()


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The state in the newest whole checkpoint, or ``None`` if there is none; warns of damaged ones that it skips.

    Raises:
        UsageError: see :func:`find_newest`.
    """
    found = find_newest(folder, device)
    for file, reason in found.damaged.items():
        warnings.warn(f"checkpoint {file} is damaged ({reason}); using the one before", stacklevel=2)
    return found.state


class Found(NamedTuple):
    """The newest whole checkpoint, if any, and the newer damaged ones with their problems."""

    path: Path | None
    state: dict[str, Any] | None
    damaged: dict[Path, str]


def find_newest(folder: Path, device: torch.device | str = "cpu") -> Found:
    """The newest whole checkpoint in ``folder``, and the problems of newer ones; only reads.

    Raises:
        UsageError: one cannot be read now (permissions, a failing disk, too little memory): it may still be whole.
    """
    damaged: dict[Path, str] = {}
    for path in _newest_first(folder):
        try:
            return Found(path, read(path, device), damaged)
        except FileNotFoundError:  # the run went on and dropped it
            continue
        except Damaged as error:
            damaged[path] = str(error)
    return Found(None, None, damaged)


class Damaged(Exception):
    """A checkpoint differs from what was written; the message gives the reason."""


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in the checkpoint ``path``, with its tensors on ``device``.

    Raises:
        Damaged: it differs from what was written.
        FileNotFoundError: it is gone.
        UsageError: it cannot be read now.
    """
    try:
        content = io.BytesIO(path.read_bytes())
        if not _is_whole(content, path.stem.partition("-")[2]):
            raise Damaged("its content does not match its digest")
        content.seek(0)
        state = unpacked(torch.load(content, map_location=device, weights_only=True))
    except (Damaged, FileNotFoundError):
        raise
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror or error}; nothing was changed") from error
    except Exception as error:  # whatever is wrong with one file, the one before it may be whole
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise UsageError(f"cannot read checkpoint {path}: too little memory; nothing was changed") from error
        raise Damaged(str(error).partition("\n")[0]) from error
    if not isinstance(state, dict) or state.get("step") != step_of(path.name):
        raise Damaged("it does not hold the step that its name says")
    return state


def set_aside(damaged: Path) -> Path:
    """Rename a damaged checkpoint so that it is neither read nor dropped again; returns its new path."""
    aside = free_name(damaged.with_name(f"{ASIDE}{damaged.name}"))
    damaged.rename(aside)
    sync_folder(aside.parent)
    return aside


def are_aside(folder: Path) -> list[Path]:
    """The damaged checkpoints that were set aside in ``folder``."""
    return sorted(folder.glob(f"{ASIDE}*"))


def save_weights(model: nn.Module, path: Path) -> None:
    """Replace ``path`` by the weights and buffers of ``model`` (safetensors; shared ones stored once).

    Raises:
        UsageError: when the disk is full or the folder cannot be written; the file is left as it was.
    """
    try:
        with replaced(path) as part:
            save_model(model, str(part))
    except (SafetensorError, OSError) as error:
        raise UsageError(f"cannot write {path}: {error}; the checkpoints are intact") from error


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint in ``folder``, whole or not; -1 without any."""
    return max((step_of(path.name) for path in _newest_first(folder)), default=-1)


def step_of(name: str) -> int:
    """The step that the ``name`` of a checkpoint says; -1 when it says none."""
    return int(digits) if (digits := name.partition("-")[0]).isdecimal() else -1


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.pt"), key=lambda path: step_of(path.name), reverse=True)


def _is_whole(content: io.BytesIO, digest: str) -> bool:
    """Whether ``content`` has the ``digest`` that its file is named by: that of its list, which each part agrees with.

    Of checkpoints made before it is one of all bytes: SHA-256, or (32 digits) BLAKE2b.
    """
    if digest.startswith(SUMS):
        return _digest_of_sums(content) == digest and zipfile.ZipFile(content).testzip() is None
    made = hashlib.blake2b(digest_size=16) if len(digest) == 32 else hashlib.sha256()
    made.update(content.getbuffer())
    return made.hexdigest() == digest
