"""Shards of webdataset: tar files whose samples are a picture and a ``.cls`` with the number of its class.

A sample's files share their name up to the first dot (github.com/webdataset/webdataset). Shards are read where they
lie, in any order, as folders are; they are neither unpacked nor streamed.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from research.data.layouts.trees import InTars, Tree, tar_members
from research.errors import UsageError

SPLITS = {"train": "train", "val": "val", "test": "val"}  # what a shard's name says -> split


def of_shards(home: Path, name: str, suffixes: Container[str]) -> Tree | None:
    """The shards below ``home`` as a tree of ``<split>/<class>/<shard>/<picture>``; None where there are none.

    Without a split in their names, it has no splits. ``suffixes`` are those of pictures.

    Raises:
        UsageError: a sample has no class, some class none, or only some shards name their split.
    """
    shards = sorted(home.glob("**/*.tar"))
    splits = {shard: _split(shard.relative_to(home)) for shard in shards}
    if len({split == "" for split in splits.values()}) > 1:
        unnamed = next(shard for shard, split in splits.items() if not split)
        raise UsageError(
            f"{name}: {unnamed} does not say its split as other shards do; expected train or val in its name"
        )
    tars, samples = InTars(), []
    for shard in shards:
        found = _samples(shard, name, suffixes)
        samples += [(splits[shard], label, f"{shard.stem}/{picture}") for label, picture, *_ in found]
        tars.add(shard, ((f"{splits[shard]} {shard.stem}/{picture}", *place) for _, picture, *place in found))
    if not samples:
        _refuse_compressed(home, name)
        return None
    labels = {label for _, label, _ in samples}
    if missing := sorted(set(range(max(labels) + 1)) - labels):
        raise UsageError(
            f"{name}: no sample in the shards of {home} has class {missing[0]}, but some have {max(labels)}"
        )
    width = len(str(max(labels)))
    names = {
        f"{split}/{label:0{width}}/{picture}".lstrip("/"): f"{split} {picture}" for split, label, picture in samples
    }
    return Tree(names, lambda entry: tars(names[entry]))


def _refuse_compressed(home: Path, name: str) -> None:
    """UsageError for compressed tar files, of which nothing can be read but all from the beginning."""
    compressed = [
        path for end in ("tar.gz", "tgz") for path in sorted(home.glob(f"*.{end}")) if "devkit" not in path.name
    ]
    if compressed:
        raise UsageError(
            f"{name}: {compressed[0]} is compressed ({len(compressed)} such), so no picture can be read by itself; "
            f"`gunzip {compressed[0]}` makes it readable"
        )


def _split(place: Path) -> str:
    """The split that a shard's name, else its folder's, says."""
    for part in (place.name, *reversed(place.parts[:-1])):
        for word, split in SPLITS.items():
            if word in part.lower():
                return split
    return ""


def _samples(shard: Path, name: str, suffixes: Container[str]) -> list[tuple[int, str, int, int]]:
    """(class, picture, offset, bytes) of every sample in a shard."""
    pictures, labels = {}, {}
    with shard.open("rb") as file:
        for member, offset, size in tar_members(shard, name):
            folder, slash, base = member.rpartition("/")
            key, dot, extension = base.partition(".")
            key = f"{folder}{slash}{key}"
            if f".{extension.lower()}" in suffixes:
                pictures[key] = (member, offset, size)
            elif extension.lower() == "cls":
                file.seek(offset)
                labels[key] = file.read(min(size, 20)).decode(errors="replace").strip()
    for key in pictures:
        if not labels.get(key, "").isdecimal():
            told = f"has the class {labels[key]!r}" if key in labels else f"has no {key}.cls"
            raise UsageError(f"{name}: {shard}: {pictures[key][0]} {told}; expected the number of its class, from 0")
    return [(int(labels[key]), *picture) for key, picture in pictures.items()]
