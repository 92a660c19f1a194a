"""MNIST and CIFAR from the files people have; the table LAYOUTS lists what is accepted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.data import synthetic
from research.data.datasets import DATASETS, contents, data_root, homes
from research.data.draws import held_out
from research.data.layouts import cifar
from research.data.layouts.layout import Arrays, Bounded, Layout, existing, keras_npz
from research.errors import UsageError


def locate(name: str, root: str | Path) -> tuple[Layout, Path]:
    """The layout found for data set ``name``, and its folder; UsageError says what is there and what was expected."""
    places = homes(name, root)
    for home in places:
        for layout in LAYOUTS[name]:
            if folder := layout.folder(home):
                return layout, folder
    expected = " or ".join(layout.expected for layout in LAYOUTS[name])
    raise UsageError(
        f"{name}: no known layout in {places[0]} (found {contents(places[0])}); expected {expected}; "
        f"{DATASETS[name].remedy}"
    )


def read_split(name: str, root: str | Path, split: str, download: bool = False) -> Arrays:
    """The samples of a set of images of one size: embedded, on disk, or first downloaded when asked."""
    if name == "digits":
        images, labels = synthetic.digits()
        chosen = held_out(labels) == (split == "val")
        return images[chosen], labels[chosen]
    if download:
        _fetch_if_missing(name, root)
    return read(name, root, split)


def count(name: str, root: str | Path, split: str, download: bool = False) -> int:
    """The number of samples that :func:`read_split` would give; those of CIFAR are neither decoded nor kept."""
    if name == "digits":
        return len(read_split(name, root, split)[1])
    if download:
        _fetch_if_missing(name, root)
    layout, folder = locate(name, root)
    if layout.labels is None:
        return len(read(name, root, split)[1])
    return len(_checked_labels(name, folder, _undamaged(layout.labels, name, folder, split)))


def read(name: str, root: str | Path, split: str) -> Arrays:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of a split; UsageError names a file that is damaged."""
    layout, folder = locate(name, root)
    return checked(name, folder, *_undamaged(layout.read, name, folder, split))


def checked(name: str, folder: Path, images: np.ndarray, labels: np.ndarray) -> Arrays:
    """What was read in ``folder``, labels as int64; UsageError unless it is what the data set ``name`` is made of."""
    labels, dataset = _checked_labels(name, folder, labels), DATASETS[name]
    shape = (*dataset.shape[1:], dataset.shape[0])
    if images.shape != (len(labels), *shape):
        raise UsageError(
            f"{name}: {folder} holds {images.shape} images and {len(labels)} labels; expected (N, {shape})"
        )
    if images.dtype != np.uint8:  # of any other type nobody knows which value is white
        raise UsageError(f"{name}: {folder} holds images of {images.dtype}; expected uint8, 0 (black) to 255 (white)")
    return images, labels


def _checked_labels(name: str, folder: Path, labels: np.ndarray) -> np.ndarray:
    """``labels`` as int64 (N,); UsageError unless each is the number of a class."""
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{name}: {folder} holds labels {labels.shape} of {labels.dtype}; expected (N,) whole numbers, N > 0"
        )
    for outside, worst in ((labels.min() < 0, labels.min()), (labels.max() >= DATASETS[name].classes, labels.max())):
        if outside:
            raise UsageError(f"{name}: {folder} holds labels up to {worst}; expected 0..{DATASETS[name].classes - 1}")
    return labels.astype(np.int64)


def _undamaged(read: Callable[[Path, str], Any], name: str, folder: Path, split: str) -> Any:
    """The result of ``read`` for ``split``; UsageError if the files are damaged."""
    try:
        return read(folder, "train" if split == "train" else "test")
    except UsageError:
        raise
    except Exception as error:  # damaged files raise anything from EOFError to BadZipFile
        raise UsageError(
            f"{name}: the files in {folder} cannot be read ({type(error).__name__}: {error}); fetch them again"
        ) from error


def _fetch_if_missing(name: str, root: str | Path) -> None:
    """Download a data set through torchvision into the root, unless some layout of it is there."""
    try:
        locate(name, root)
        return
    except UsageError:
        root = data_root(root)
    import torchvision.datasets

    fetch = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    try:
        for train in (True, False):
            getattr(torchvision.datasets, fetch)(str(root), train=train, download=True)
    except Exception as error:  # no network, disk full, a mirror's checksum
        raise UsageError(f"{name}: the download into {root} failed ({type(error).__name__}: {error})") from error


def _read_idx(folder: Path, split: str) -> Arrays:
    """Yann LeCun's format: big-endian 0x0800 + dimensions, then the size of each, then the bytes."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images, labels = (_idx(existing(folder / f"{prefix}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    return images[..., None], labels


def _idx(path: Path) -> np.ndarray:
    with Bounded(gzip.open(path) if path.suffix == ".gz" else path.open("rb"), path) as file:
        data = file.content()
    magic = int.from_bytes(data[:4], "big")
    if magic >> 8 != 8 or not 1 <= magic & 255 <= 3:
        raise UsageError(f"mnist: {path} is not an IDX file (its first bytes are {data[:4].hex()})")
    shape = np.frombuffer(data, ">u4", magic & 255, offset=4).astype(int)
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
    if body.size != shape.prod():
        raise UsageError(f"mnist: {path} is truncated: {body.size:,} of {shape.prod():,} bytes; fetch it again")
    return body.reshape(shape)


IDX = tuple(f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))
LAYOUTS = {
    "mnist": (
        Layout("the four IDX files (plain or .gz, also in MNIST/raw)", ("MNIST/raw", "raw", "."), IDX, _read_idx),
        keras_npz("mnist"),
    ),
    "cifar10": cifar.LAYOUTS10,
    "cifar100": cifar.LAYOUTS100,
}
