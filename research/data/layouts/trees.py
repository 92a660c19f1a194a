"""A folder, a zip file or tar files as one tree: what is in it, and how a file of it is read, by any process."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from research.data.images import UnreadableImage, refuse_large
from research.errors import UsageError


@dataclass(frozen=True)
class Tree:
    """``entries``: files, and folders with a slash at their end, relative to the place; ``read(file)``: its content."""

    entries: Iterable[str]
    read: Callable[[str], bytes]


def of_folder(home: Path) -> Tree:
    """A folder as it is; links are followed, and no folder comes twice."""
    return Tree(_walk(home), partial(_read_file, home))


def of_zip(path: Path, name: str) -> Tree:
    """The zip file of a folder. UsageError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Tree(sorted(archive.namelist()), _Zip(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{name}: {path} is not a readable zip file ({error}); fetch it again") from error


def _walk(home: Path) -> Iterator[str]:
    seen, waiting = {home.resolve()}, [""]
    while waiting:
        inside = waiting.pop()
        for entry in _entries(home / inside):
            place = f"{inside}{entry.name}"
            if not os.path.isdir(entry):  # where a link ends nowhere, DirEntry.is_dir may raise
                yield place  # that link too: it is told with the unreadable pictures
            elif not entry.name.startswith(".") and (real := Path(entry.path).resolve()) not in seen:
                seen.add(real)
                waiting.append(f"{place}/")
                yield f"{place}/"


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from None


def _read_file(home: Path, file: str) -> bytes:
    """The content of a picture file; UnreadableImage if it is not a regular file (a pipe would block) or too large."""
    found = (home / file).stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableImage(f"{file}: is not a file of data")
    refuse_large(file, found.st_size)
    return (home / file).read_bytes()


class _Zip:
    """A zip file read by any process: each opens its own handle, because forked ones would share one position."""

    def __init__(self, path: Path):
        self.path = path
        self.process = 0

    def __call__(self, file: str) -> bytes:
        if self.process != os.getpid():
            self.archive, self.process = zipfile.ZipFile(self.path), os.getpid()
        refuse_large(file, self.archive.getinfo(file).file_size)
        return self.archive.read(file)


class InTars:
    """Files that lie in tar files, read where they lie: no archive is unpacked."""

    def __init__(self):
        self.archives: list[Path] = []
        self.places: dict[str, tuple[int, int, int]] = {}  # name -> number of the archive, offset, bytes

    def add(self, path: Path, named: Iterable[tuple[str, int, int]]) -> None:
        """Files of the tar file ``path``: (name, offset, bytes)."""
        number = len(self.archives)
        self.archives.append(path)
        self.places |= {name: (number, offset, size) for name, offset, size in named}

    def __call__(self, name: str) -> bytes:
        number, offset, size = self.places[name]
        refuse_large(name, size)
        with self.archives[number].open(
            "rb"
        ) as file:  # opened each time: a data set may have more archives than a process may open
            file.seek(offset)
            return file.read(size)


def tar_members(path: Path, name: str, nested: bool = False) -> Iterator[tuple[str, int, int]]:
    """The files in the tar file ``path``: (name, offset in it, bytes); ``nested``: those in the tar files in it.

    Raises:
        UsageError: it is compressed, damaged or incomplete.
    """
    try:
        total = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if (end := member.offset_data + member.size) > total:
                    raise tarfile.ReadError(f"it ends at {total:,} of at least {end:,} bytes")
                if not nested:
                    yield member.name, member.offset_data, member.size
                elif member.name.endswith(".tar"):
                    with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
                        folder = member.name.removesuffix(".tar")
                        for file in inner:
                            if file.isfile():
                                yield f"{folder}/{file.name}", member.offset_data + file.offset_data, file.size
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"{name}: {path} cannot be read as a tar file ({error}); fetch it again") from error
