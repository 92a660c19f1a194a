"""Folders of pictures, also zipped: which files belong to which class and split, and their pixels."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from research.data.augment import held_out
from research.data.datasets import contents, describe, homes
from research.data.images import UnreadableImage, decode
from research.errors import UsageError

SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .gif".split())
WNID = re.compile(r"n\d{8}")


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
        except (OSError, zipfile.BadZipFile) as error:
            raise UnreadableImage(f"{self.files[i]}: {error}") from None

    def all_decoded(self, progress: str) -> tuple[list[np.ndarray | None], list[str]]:
        """Every picture, None where unreadable, and the reasons of all that are."""
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


def find(name: str, root: str | Path) -> dict[str, Pictures]:
    """The pictures of both splits. UsageError says what was found and what was expected."""
    dataset, places = describe(name), homes(name, root)
    for home in places:
        if found := _in_place(home, name):
            return found
    classes = "<wnid> (such as n01440764)" if name == "imagenet" else "<class>"
    raise UsageError(
        f"{name}: no pictures in {places[0]} (found {contents(places[0])}); expected train/{classes}/ and "
        f"val/{classes}/, or {classes}/ alone, or a zip file of these; {dataset.remedy}"
    )


def _in_place(home: Path, name: str) -> dict[str, Pictures] | None:
    if home.suffix == ".zip":
        return _from_zip(home, name)
    if not home.is_dir():
        return None
    if (home / "train").is_dir():
        if not (home / "val").is_dir():
            raise UsageError(f"{name}: {home} has train/ but no val/; expected both, one folder a class in each")
        listed = {split: _listed(_walk(home / split), name) for split in ("train", "val")}
        return _two_splits(home, listed, lambda file: (home / file).read_bytes())
    files, skipped = _listed(_walk(home), name)
    if files:
        return _undivided(files, skipped, lambda file: (home / file).read_bytes())
    archives = sorted(home.glob("*.zip"))
    return _from_zip(archives[0], name) if len(archives) == 1 else None


def _walk(folder: Path) -> Iterable[tuple[str, str]]:
    """(class, file) of every file one folder below ``folder``; the file's name starts at ``folder``'s home."""
    base = folder if folder.name not in ("train", "val") else folder.parent
    for class_folder in sorted(folder.iterdir()):
        if class_folder.is_dir() and not class_folder.name.startswith("."):
            for file in sorted(class_folder.rglob("*")):
                if file.is_file():
                    yield class_folder.name, file.relative_to(base).as_posix()


def _listed(entries: Iterable[tuple[str, str]], name: str) -> tuple[dict[str, list[str]], int]:
    """Files by class, and how many foreign or hidden files were left out."""
    files, skipped = defaultdict(list), 0
    for class_name, file in entries:
        if name == "imagenet" and not WNID.fullmatch(class_name):
            continue
        path = PurePosixPath(file)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            files[class_name].append(file)
        else:
            skipped += 1
    return files, skipped


def _from_zip(path: Path, name: str) -> dict[str, Pictures] | None:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{name}: {path} is not a readable zip file ({error}); fetch it again") from error
    entries = sorted((PurePosixPath(n).parent.name, n) for n in archive.namelist() if not n.endswith("/"))
    files, skipped = _listed((e for e in entries if not e[1].startswith("__MACOSX")), name)
    if not files:
        return None
    parts = {PurePosixPath(f).parts[-3] if len(PurePosixPath(f).parts) > 2 else "" for fs in files.values() for f in fs}
    if parts == {"train", "val"}:
        listed = {
            split: ({c: [f for f in fs if PurePosixPath(f).parts[-3] == split] for c, fs in files.items()}, skipped)
            for split in ("train", "val")
        }
        return _two_splits(path, listed, archive.read)
    return _undivided(files, skipped, archive.read)


def _two_splits(home: Path, listed: dict, read: Callable[[str], bytes]) -> dict[str, Pictures]:
    classes = tuple(sorted(name for name, files in listed["train"][0].items() if files))
    unknown = sorted(name for name, files in listed["val"][0].items() if files and name not in classes)
    if unknown:
        raise UsageError(
            f"{home}: val/ has classes that train/ lacks: {', '.join(unknown[:6])} ({len(unknown)} in all)"
        )
    empty = [split for split in ("train", "val") if not any(listed[split][0].values())]
    if empty:
        raise UsageError(f"{home}: no pictures in {empty[0]}/; expected {empty[0]}/<class>/*.jpg")
    return {split: _pictures(files, classes, read, skipped) for split, (files, skipped) in listed.items()}


def _undivided(files: dict[str, list[str]], skipped: int, read: Callable[[str], bytes]) -> dict[str, Pictures]:
    everything = _pictures(files, tuple(sorted(files)), read, skipped)
    if len(everything) < 5:
        raise UsageError(f"only {len(everything)} picture(s) found; at least 5 are needed to hold one in five out")
    held = held_out(everything.labels)
    return {"train": everything.subset(~held), "val": everything.subset(held)}


def _pictures(files: dict[str, list[str]], classes: tuple[str, ...], read, skipped: int) -> Pictures:
    names = [name for class_name in classes for name in files.get(class_name, ())]
    labels = np.repeat(np.arange(len(classes)), [len(files.get(class_name, ())) for class_name in classes])
    return Pictures(tuple(names), labels.astype(np.int64), classes, read, skipped)
