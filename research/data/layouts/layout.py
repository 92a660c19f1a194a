"""What a layout of a set of images is, and its files read within bounds: never more is inflated than a set needs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from research.errors import UsageError

LARGEST_FILE = 200_000_000  # bytes; the largest file of these sets has 155 million
LARGEST_ARCHIVE = 500_000_000

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, H, W, C) uint8, labels (N,) int64


@dataclass(frozen=True)
class Layout:
    """One layout of a data set on disk: where to look below its home, what must be there, and how it is read."""

    expected: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Path, str], Arrays]
    labels: Callable[[Path, str], np.ndarray] | None = None  # alone, where the images would take long or much memory

    def folder(self, home: Path) -> Path | None:
        places = (home / name for name in self.folders)
        return next((p for p in places if all(existing(p / file) for file in self.files)), None)


def existing(path: Path) -> Path | None:
    """``path`` or its gzipped form."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


class Bounded(io.RawIOBase):
    """A file, compressed or not, from which never more is inflated than the data set needs."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > LARGEST_FILE or self.file.tell() + size > LARGEST_ARCHIVE:
            raise UsageError(f"{self.path}: holds more than {LARGEST_FILE:,} bytes in one piece; fetch it again")
        return self.file.read(size)

    def content(self) -> bytes:
        """All of it."""
        data = self.read(LARGEST_FILE)
        if self.read(1):
            raise UsageError(f"{self.path}: holds more than {LARGEST_FILE:,} bytes; fetch it again")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > LARGEST_ARCHIVE:
            raise UsageError(f"{self.path}: holds more than {LARGEST_ARCHIVE:,} bytes; fetch it again")
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        super().close()


def bounded_content(path: Path) -> bytes:
    """The content of a file of a data set; UsageError if it is larger than any of them."""
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise UsageError(f"{path}: {size:,} bytes are more than the data set has; fetch it again")
    return path.read_bytes()


def npz(path: Path, *names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays in ``path``, each under the first of its ``names`` that exists; nothing too large is inflated."""
    with zipfile.ZipFile(path) as archive:
        if (total := sum(member.file_size for member in archive.infolist())) > LARGEST_ARCHIVE:
            raise UsageError(f"{path}: holds {total:,} bytes, more than {LARGEST_ARCHIVE:,}; fetch it again")
    with np.load(path) as archive:
        return [archive[next((name for name in own if name in archive), own[0])] for own in names]


def keras_npz(name: str) -> Layout:
    """``<name>.npz`` with keys train_images train_labels test_images test_labels, or Keras' x_train y_train …."""
    file = f"{name}.npz"

    def read(folder: Path, split: str) -> Arrays:
        keys = (f"{split}_images", f"x_{split}"), (f"{split}_labels", f"y_{split}")
        images, labels = npz(folder / file, *keys)
        images = images[..., None] if images.ndim == 3 else images
        return images, labels[:, 0] if labels.shape[1:] == (1,) else labels  # Keras has CIFAR's as (N, 1)

    return Layout(file, (".",), (file,), read)
