"""FFCV files that another program wrote, such as ffcv-imagenet's script: verified, described, used as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from research.data.datasets import Dataset, data_root, describe
from research.data.ffcv import beton
from research.data.images import UnreadableImage, decode
from research.errors import UsageError

JPG, RAW = 0, 1  # FFCV's IMAGE_MODES
DECODED = 64  # samples that are decoded to see whether they are pictures


def adopt(file: str | Path, dataset: str, root: str | Path = "", split: str = "") -> beton.Beton:
    """Describe ``file`` as ``<dataset>-<split>.beton``, a link in ``root``, else in ``data``; the file itself stays.

    Every entry is checked, and first, last and some other samples are decoded. Without ``split``, its name says it.

    Raises:
        UsageError: it is no whole FFCV file of an image and its label, they are not those of ``dataset``, or a file of
            that data set is there already.
    """
    described, file = describe(dataset), Path(file).expanduser()
    if described.kind == "vectors":
        raise UsageError(f"{dataset}: is a set of vectors, which needs no FFCV file")
    beton.require_ffcv()
    if not file.is_file():
        raise UsageError(f"{file}: {'is a folder; give the FFCV file in it' if file.is_dir() else 'no such file'}")
    split = split or _split_in(file.name)
    link = (Path(root).expanduser() if root else beton.HERE) / f"{dataset}-{split}{beton.SUFFIX}"
    _refuse_taken(link, file)
    samples, told = _looked_into(file, described)
    told |= {"classes": _classes(file, described, split, samples["f1"].reshape(-1), root)}
    told |= {"root": str(data_root(root).resolve()), "source": ""}
    told |= {"samples": len(samples), "bytes": file.stat().st_size, "checksum": beton.checksum_of(file)}
    found = beton.Beton(path=link, dataset=dataset, split=split, channels=described.shape[0], **told)
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        beton.save(found)
        if not link.exists():
            link.symlink_to(file.resolve())
    except OSError as error:
        raise UsageError(f"{link}: cannot be written ({error.strerror}); give --root FOLDER") from error
    return found


def _split_in(name: str) -> str:
    words = {"train": "train", "val": "val", "test": "val"}
    said = {split for word, split in words.items() if word in name.lower()}
    if len(said) != 1:
        raise UsageError(f"{name}: does not say which split it holds; give --split train or --split val")
    return said.pop()


def _refuse_taken(link: Path, file: Path) -> None:
    side = link.with_name(link.name + ".json")
    if os.path.lexists(link) and not (link.exists() and link.samefile(file)):
        raise UsageError(f"{link}: exists, and is not {file}; remove it first")
    if side.exists():
        raise UsageError(f"{link}: is described already; remove {side} to adopt it again")


def _looked_into(file: Path, dataset: Dataset) -> tuple[np.ndarray, dict[str, Any]]:
    """FFCV's entries (image ``f0``, label ``f1``) of all samples, and how pixels are kept."""
    from ffcv.fields import IntField, RGBImageField  # FFCV takes seconds
    from ffcv.reader import Reader

    try:
        reader = Reader(str(file))
    except Exception as error:  # whatever other bytes make of its header
        raise UsageError(f"{file}: not an FFCV file that can be read ({error or type(error).__name__})") from None
    fields = {name: type(field) for name, field in reader.handlers.items()}
    if list(fields.items()) != [("image", RGBImageField), ("label", IntField)]:
        told = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
        raise UsageError(f"{file}: holds {told or 'nothing'}; expected image (RGBImageField), label (IntField)")
    samples = reader.metadata
    if not len(samples) or len(samples) != reader.num_samples:
        raise UsageError(f"{file}: truncated: {len(samples):,} of {reader.num_samples:,} samples; write it again")
    _refuse_broken(file, samples["f0"], reader.alloc_table, dataset)
    kinds = set(np.unique(samples["f0"]["mode"]).tolist())
    mode = {frozenset({JPG}): "jpg", frozenset({RAW}): "raw"}.get(frozenset(kinds), "mixed")
    return samples, {"mode": mode, "quality": None, "max_resolution": None}


def _refuse_broken(file: Path, images: np.ndarray, allocated: np.ndarray, dataset: Dataset) -> None:
    """UsageError unless every image lies in the file, has the size that ``dataset`` needs, and can be decoded."""
    order = np.argsort(allocated["ptr"])
    at = np.searchsorted(allocated["ptr"][order], images["data_ptr"]).clip(max=max(0, len(order) - 1))
    known = allocated[order][at] if len(order) else np.zeros(len(images), allocated.dtype)
    lost = (known["ptr"] != images["data_ptr"]) | (known["ptr"] + known["size"] > file.stat().st_size)
    if lost.any():
        raise UsageError(
            f"{file}: truncated: sample {lost.argmax():,} is not in it ({lost.sum():,} such); copy it again"
        )
    if dataset.kind == "images":
        height, width = dataset.shape[1:]
        other = (images["height"] != height) | (images["width"] != width)
        if other.any():
            first = images[other.argmax()]
            raise UsageError(
                f"{file}: sample {other.argmax():,} has {first['height']} x {first['width']} pixels; "
                f"those of {dataset.name} have {height} x {width}"
            )
    with file.open("rb") as content:
        for i in np.unique(np.linspace(0, len(images) - 1, DECODED).astype(int)):
            content.seek(int(known["ptr"][i]))
            if problem := _undecodable(content.read(int(known["size"][i])), images[i]):
                raise UsageError(f"{file}: sample {i:,}: {problem}; copy or write it again")


def _undecodable(stored: bytes, image: np.void) -> str:
    """What is wrong with one stored image; empty if it is what its entry says."""
    height, width = int(image["height"]), int(image["width"])
    if image["mode"] == RAW:
        return "" if len(stored) == height * width * 3 else f"{len(stored):,} bytes are not {height} x {width} pixels"
    try:
        shape = decode(stored, "its JPEG").shape[:2]
    except UnreadableImage as error:
        return str(error)
    return "" if shape == (height, width) else f"its JPEG has {shape[0]} x {shape[1]} pixels, not {height} x {width}"


def _classes(file: Path, dataset: Dataset, split: str, labels: np.ndarray, root: str | Path) -> tuple[str, ...]:
    """The names of the classes, which are numbers: an FFCV file has no others."""
    low, high = int(labels.min()), int(labels.max())
    count = dataset.classes or high + 1
    if low < 0 or high >= count:
        raise UsageError(f"{file}: has labels {low} to {high}; those of {dataset.name} are 0 to {count - 1}")
    missing = np.setdiff1d(np.arange(count), labels)
    if len(missing):
        raise UsageError(f"{file}: no sample has label {missing[0]} ({len(missing)} such below {count})")
    other = {"train": "val", "val": "train"}[split]
    if (beside := beton.path_of(dataset.name, root, other)) and (theirs := len(beton.load(beside).classes)) != count:
        raise UsageError(f"{file}: has {count} classes, and {beside} has {theirs}; they belong together")
    return tuple(map(str, range(count)))
