"""Folders of pictures, also in archives: which files belong to which class and split, and their pixels."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from research.data.datasets import contents, describe, homes
from research.data.draws import held_out
from research.data.images import UnreadableImage, decode
from research.data.layouts import imagenet, shards, trees
from research.data.layouts.trees import Tree
from research.errors import UsageError

SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .gif".split())
SPLITS = {"train": ("train",), "val": ("val", "validation")}  # the folders of each
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
        return _arranged(home, trees.of_zip(home, name), name, splits)
    if not home.is_dir():
        return None
    names = {folder: split for split, folders in SPLITS.items() for folder in folders}
    others = [folder for folder, split in names.items() if split != names.get(home.name)]
    if home.name in names and any((home.parent / other).is_dir() for other in others):
        raise UsageError(f"{name}: {home} is one split of {home.parent}; give data_root={home.parent}")
    tree = trees.of_folder(home)
    if found := _arranged(home, imagenet.with_tars(home, tree) if name == "imagenet" else tree, name, splits):
        return found
    archives = sorted(home.glob("*.zip"))
    if len(archives) == 1:
        return _arranged(archives[0], trees.of_zip(archives[0], name), name, splits)
    tree = shards.of_shards(home, name, SUFFIXES)
    return _arranged(home, tree, f"shards of {name}", splits) if tree else None


@dataclass(frozen=True)
class _Listing:
    """The contents of a split: pictures by class, empty classes, and the number of other files."""

    files: dict[str, list[str]]
    empty: set[str]
    skipped: int


def _arranged(home: Path, tree: Tree, name: str, splits: Sequence[str]) -> dict[str, Pictures] | None:
    """The pictures in ``tree``, the content of ``home``."""
    visible = [entry for entry in tree.entries if not _hidden(entry)]
    wrapper = name == "imagenet" and imagenet.kaggle_folder(visible) or _wrapper(visible)
    places = sorted((entry.removeprefix(wrapper).split("/"), entry) for entry in visible if entry.startswith(wrapper))
    divided = {
        split: [(place[1:], e) for place, e in places if place[0] in SPLITS[split] and len(place) > 1]
        for split in SPLITS
    }
    there = [split for split in SPLITS if divided[split]]
    if there:
        if missing := [split for split in splits if split not in there]:
            raise UsageError(
                f"{name}: {home} has {there[0]}/ but no {missing[0]}/; expected both, one folder a class in each"
            )
        listings = {split: _listing(divided[split], name) for split in there}
        if name == "imagenet" and "val" in there and imagenet.is_flat(divided["val"]):
            classes = sorted(listings["train"].files) if "train" in there else ()
            placed = imagenet.by_class(home, divided["val"], Tree(visible, tree.read), classes)
            listings["val"] = _listing(placed, name)
        if not any(listing.files or listing.empty for listing in listings.values()):
            return None
        return _two_splits(home, listings, tree.read)
    listing = _listing(places, name)
    return _undivided(home, listing, tree.read) if listing.files else None


def _hidden(entry: str) -> bool:
    return entry.startswith((".", "__MACOSX/")) or "/." in entry


def _wrapper(entries: Sequence[str]) -> str:
    """The folders, such as ``data/``, with nothing beside them and no picture in them; ends with a slash."""
    wrapper = ""
    while True:
        inside = [entry.removeprefix(wrapper) for entry in entries if entry.startswith(wrapper) and entry != wrapper]
        tops = {entry.partition("/")[0] for entry in inside}
        alone = tops.pop() if len(tops) == 1 else None
        if (
            alone is None
            or any(alone in folders for folders in SPLITS.values())
            or any(_is_picture(e) and e.count("/") < 2 for e in inside)
        ):
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
