"""Checkpoints that survive kill -9, a full disk and bit rot: written aside, renamed whole, checked when read."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from research.errors import UsageError
from research.files import write_atomic


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``state`` as ``folder/<step>-<digest>.pt`` and drop all but the newest ``keep`` files.

    The digest in the name is of the content, so a file says by itself whether it is whole, and the rename publishes
    both at once.

    Raises:
        UsageError: when the disk is full or the folder cannot be written; older checkpoints are left as they were.
    """
    content = io.BytesIO()
    torch.save(state, content)
    path = folder / f"{step:09d}-{_digest(content.getbuffer())}.pt"
    try:
        folder.mkdir(exist_ok=True)
        write_atomic(path, content.getbuffer())
    except OSError as error:
        older = _newest_first(folder)
        kept = f"{older[0].name} is intact and the run continues from it" if older else "none was written before"
        raise UsageError(f"cannot write checkpoint of step {step} to {folder}: {error.strerror}; {kept}") from error
    for old in _newest_first(folder)[keep:]:
        old.unlink()
    return path


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest whole checkpoint, or ``None`` without any; damaged ones are passed over with a warning."""
    for path in _newest_first(folder):
        try:
            content = path.read_bytes()
            if _digest(content) != path.stem.partition("-")[2]:
                raise OSError("its content does not match its digest")
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except Exception as error:  # whatever is wrong with one file, the one before it may be whole
            reason = str(error).partition("\n")[0]
            warnings.warn(f"checkpoint {path} is damaged ({reason}); using the one before", stacklevel=2)
    return None


def save_weights(model: nn.Module, path: Path) -> None:
    """Replace ``path`` by the weights and buffers of ``model`` (safetensors; shared ones stored once).

    Raises:
        UsageError: when the disk is full or the folder cannot be written; the file is left as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        save_model(model, str(part))
        os.chmod(part, 0o644)  # safetensors lets only the owner read what it writes
        os.replace(part, path)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error}; the checkpoints are intact") from error


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
