"""Folders of pictures, also zipped: which files belong to which class and split, and their pixels."""

from __future__ import annotations

import lzma
import os
import re
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from research.data.augment import held_out
from research.data.datasets import contents, describe, homes
from research.data.images import UnreadableImage, decode, refuse_large
from research.errors import UsageError

SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .gif".split())
SPLITS = ("train", "val")
WNID = re.compile(r"n\d{8}")
# what one file of a zip archive may end in: damaged, encrypted (RuntimeError), packed by a method not known (its child)
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Pictures:
    """The picture files of a split, sorted by class and name, with labels (N,) int64 and how to read one."""

    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[str], bytes]
    skipped: int  # foreign files next to the pictures

    def __len__(self) -> int:
        return len(self.files)

    def decoded(self, i: int) -> np.ndarray:
        """Picture i as (H, W, 3) uint8; UnreadableImage names its file."""
        try:
            return decode(self.read(self.files[i]), self.files[i])
        except UNREADABLE as error:
            raise UnreadableImage(f"{self.files[i]}: {error}") from None

    def all_decoded(self, progress: str) -> tuple[list[np.ndarray | None], list[str]]:
        """Every picture, None where unreadable, and the reasons why."""
        found = list(self._each(self.decoded, progress))
        reasons = [str(picture) for picture in found if isinstance(picture, UnreadableImage)]
        return [None if isinstance(picture, UnreadableImage) else picture for picture in found], reasons

    def scan(self, progress: str) -> tuple[np.ndarray, dict[int, str]]:
        """Decode everything and keep nothing: bytes of each picture (N,), 0 where unreadable, and why by index."""
        found = list(self._each(lambda i: self.decoded(i).nbytes, progress))
        reasons = {i: str(size) for i, size in enumerate(found) if isinstance(size, UnreadableImage)}
        return np.array([0 if i in reasons else size for i, size in enumerate(found)], np.int64), reasons

    def subset(self, chosen: np.ndarray) -> Pictures:
        """The pictures where ``chosen`` (N,) bool is true."""
        names = tuple(name for name, keep in zip(self.files, chosen, strict=True) if keep)
        return replace(self, files=names, labels=self.labels[chosen])

    def _each(self, function: Callable[[int], Any], progress: str) -> Iterator[Any]:
        """``function(i)`` of every picture in order, or the UnreadableImage it raised; threads, with a progress bar."""
        from tqdm import tqdm

        def caught(i: int) -> Any:
            try:
                return function(i)
            except UnreadableImage as error:
                return error

        with ThreadPoolExecutor() as pool, tqdm(total=len(self), desc=progress, unit="img", disable=None) as bar:
            for start in range(0, len(self), 1024):  # a million futures at once would take more memory than images
                for result in pool.map(caught, range(start, min(start + 1024, len(self)))):
                    bar.update()
                    yield result

    def decoded_bytes(self) -> int:
        """Memory that all pictures take when decoded, estimated from the headers of 64 of them."""
        import io

        from PIL import Image

        areas = []
        for i in np.linspace(0, len(self) - 1, min(64, len(self))).astype(int):
            try:
                with Image.open(io.BytesIO(self.read(self.files[i]))) as image:
                    areas.append(image.size[0] * image.size[1])
            except Exception:  # counted as nothing here, named when it is decoded
                continue
        return int(3 * len(self) * np.mean(areas)) if areas else 0


def refuse(name: str, reasons: list[str]) -> None:
    """Raise UsageError that lists every unreadable picture."""
    if reasons:
        lines = "\n".join(f"  {reason}" for reason in reasons)
        raise UsageError(
            f"{name}: {len(reasons)} unreadable picture(s); remove or replace them, or write an FFCV file without them "
            f"(`research data write {name} --skip-bad`):\n{lines}"
        )


def find(name: str, root: str | Path, splits: Sequence[str] = ("train", "val")) -> dict[str, Pictures]:
    """The pictures of ``splits``. UsageError says what was found and what was expected.

    A folder and the zip file of it are the same data set: classes are the first folders below ``train/`` and ``val/``,
    or below the place itself, however deep the pictures are. A single folder around everything is ignored. Hidden
    files and folders are skipped at every depth; links are followed.
    """
    dataset, places = describe(name), homes(name, root)
    for home in places:
        if found := _in_place(home, name, splits):
            return found
    classes = "<wnid> (such as n01440764)" if name == "imagenet" else "<class>"
    raise UsageError(
        f"{name}: no pictures in {places[0]} (found {contents(places[0])}); expected train/{classes}/ and "
        f"val/{classes}/, or {classes}/ alone, or a zip file of these; {dataset.remedy}"
    )


def _in_place(home: Path, name: str, splits: Sequence[str]) -> dict[str, Pictures] | None:
    if home.suffix == ".zip":
        return _from_zip(home, name, splits)
    if not home.is_dir():
        return None
    if home.name in SPLITS and any((home.parent / other).is_dir() for other in SPLITS if other != home.name):
        raise UsageError(f"{name}: {home} is one split of {home.parent}; give data_root={home.parent}")
    if found := _arranged(home, _walk(home), name, splits, partial(_read_file, home)):
        return found
    archives = sorted(home.glob("*.zip"))
    return _from_zip(archives[0], name, splits) if len(archives) == 1 else None


def _walk(home: Path) -> Iterator[str]:
    """Every file below ``home``, and every folder with a slash at its end, relative to it; no folder comes twice."""
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


class _Archive:
    """A zip file read by any process: each opens its own handle, because forked ones would share one position."""

    def __init__(self, path: Path):
        self.path = path
        self.process = 0

    def __call__(self, file: str) -> bytes:
        if self.process != os.getpid():
            self.archive, self.process = zipfile.ZipFile(self.path), os.getpid()
        refuse_large(file, self.archive.getinfo(file).file_size)
        return self.archive.read(file)


def _from_zip(path: Path, name: str, splits: Sequence[str]) -> dict[str, Pictures] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{name}: {path} is not a readable zip file ({error}); fetch it again") from error
    return _arranged(path, entries, name, splits, _Archive(path))


@dataclass(frozen=True)
class _Listing:
    """The contents of a split: pictures by class, empty classes, and the number of other files."""

    files: dict[str, list[str]]
    empty: set[str]
    skipped: int


def _arranged(
    home: Path, entries: Iterable[str], name: str, splits: Sequence[str], read: Callable[[str], bytes]
) -> dict[str, Pictures] | None:
    """The pictures among ``entries``, files and folders (with a slash at the end) relative to ``home``."""
    visible = [entry for entry in entries if not _hidden(entry)]
    wrapper = _wrapper(visible)
    places = sorted((entry.removeprefix(wrapper).split("/"), entry) for entry in visible)
    divided = {
        split: [(place[1:], e) for place, e in places if place[0] == split and len(place) > 1] for split in SPLITS
    }
    there = [split for split in SPLITS if divided[split]]
    if there:
        if missing := [split for split in splits if split not in there]:
            raise UsageError(
                f"{name}: {home} has {there[0]}/ but no {missing[0]}/; expected both, one folder a class in each"
            )
        return _two_splits(home, {split: _listing(divided[split], name) for split in there}, read)
    listing = _listing(places, name)
    return _undivided(home, listing, read) if listing.files else None


def _hidden(entry: str) -> bool:
    return entry.startswith((".", "__MACOSX/")) or "/." in entry


def _wrapper(entries: Sequence[str]) -> str:
    """The folders, such as ``data/``, with nothing beside them and no picture in them; ends with a slash."""
    wrapper = ""
    while True:
        inside = [entry.removeprefix(wrapper) for entry in entries if entry.startswith(wrapper) and entry != wrapper]
        tops = {entry.partition("/")[0] for entry in inside}
        alone = tops.pop() if len(tops) == 1 else None
        if alone is None or alone in SPLITS or any(_is_picture(e) and e.count("/") < 2 for e in inside):
            return wrapper  # a class holds pictures itself
        wrapper += f"{alone}/"


def _listing(places: Iterable[tuple[list[str], str]], name: str) -> _Listing:
    """Entries (parts of the place below the split, name for reading) by class."""
    files, folders, filled, skipped = defaultdict(list), set(), set(), 0
    for place, entry in places:
        if name == "imagenet" and not WNID.fullmatch(place[0]):
            continue
        if len(place) > 1:
            folders.add(place[0])
        if entry.endswith("/"):
            continue
        if len(place) > 1 and _is_picture(entry):
            files[place[0]].append(entry)
        else:
            skipped += 1
        filled.add(place[0])
    return _Listing(dict(files), folders - filled, skipped)


def _is_picture(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in SUFFIXES


def _two_splits(home: Path, listings: dict[str, _Listing], read: Callable[[str], bytes]) -> dict[str, Pictures]:
    _refuse_empty(home, set.union(*(own.empty for own in listings.values())), listings.values())
    classes = tuple(sorted(next(iter(listings.values())).files))  # of train, where it is there
    for split, listing in listings.items():
        if unknown := sorted(set(listing.files) - set(classes)):
            raise UsageError(
                f"{home}: {split}/ has classes that train/ lacks: {', '.join(unknown[:6])} ({len(unknown)} in all)"
            )
        if not listing.files:
            raise UsageError(f"{home}: no pictures in {split}/; expected {split}/<class>/*.jpg")
    return {split: _pictures(listing, classes, read) for split, listing in listings.items()}


def _refuse_empty(home: Path, empty: set[str], listings: Iterable[_Listing]) -> None:
    """UsageError for a class without any picture in any split: skipping it would shift the labels of the others."""
    if nowhere := sorted(empty - {name for listing in listings for name in listing.files}):
        raise UsageError(
            f"{home}: the folder of class {', '.join(nowhere[:6])} ({len(nowhere)} in all) is empty; fill or remove it"
        )


def _undivided(home: Path, listing: _Listing, read: Callable[[str], bytes]) -> dict[str, Pictures]:
    _refuse_empty(home, listing.empty, [listing])
    everything = _pictures(listing, tuple(sorted(listing.files)), read)
    if len(everything) < 5:
        raise UsageError(f"only {len(everything)} picture(s) found; at least 5 are needed to hold one in five out")
    held = held_out(everything.labels)
    return {"train": everything.subset(~held), "val": everything.subset(held)}


def _pictures(listing: _Listing, classes: tuple[str, ...], read: Callable[[str], bytes]) -> Pictures:
    files = [listing.files.get(name, []) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(own) for own in files]).astype(np.int64)
    return Pictures(tuple(name for own in files for name in own), labels, classes, read, listing.skipped)
