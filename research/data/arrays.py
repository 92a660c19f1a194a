"""MNIST and CIFAR from the files people have: what is accepted is the table LAYOUTS."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.data import synthetic
from research.data.augment import held_out
from research.data.datasets import DATASETS, contents, data_root, homes
from research.errors import UsageError

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, H, W, C) uint8, labels (N,) int64


@dataclass(frozen=True)
class Layout:
    """One way a data set lies on disk: where to look below its home, what must be there, and how it is read."""

    expected: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Path, str], Arrays]

    def folder(self, home: Path) -> Path | None:
        places = (home / name for name in self.folders)
        return next((p for p in places if all(_existing(p / file) for file in self.files)), None)


def locate(name: str, root: str | Path) -> tuple[Layout, Path]:
    """The layout found for data set ``name`` and its folder; UsageError says what is there and what should be."""
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


def read(name: str, root: str | Path, split: str) -> Arrays:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of a split; UsageError names a file that is damaged."""
    layout, folder = locate(name, root)
    try:
        images, labels = layout.read(folder, "train" if split == "train" else "test")
    except UsageError:
        raise
    except Exception as error:  # damaged files raise anything from EOFError to BadZipFile
        raise UsageError(
            f"{name}: the files in {folder} cannot be read ({type(error).__name__}: {error}); fetch them again"
        ) from error
    dataset = DATASETS[name]
    shape = (*dataset.shape[1:], dataset.shape[0])
    if images.shape != (len(labels), *shape) or not len(labels):
        raise UsageError(
            f"{name}: {folder} holds {images.shape} images and {len(labels)} labels; expected (N, {shape})"
        )
    if labels.min() < 0 or labels.max() >= dataset.classes:
        raise UsageError(f"{name}: {folder} holds labels up to {labels.max()}; expected 0..{dataset.classes - 1}")
    return images, labels.astype(np.int64)


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


def _existing(path: Path) -> Path | None:
    """``path`` or its gzipped form."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _read_idx(folder: Path, split: str) -> Arrays:
    """Yann LeCun's format: big-endian 0x0800 + dimensions, then the size of each, then the bytes."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images, labels = (_idx(_existing(folder / f"{prefix}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    return images[..., None], labels


def _idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    magic = int.from_bytes(data[:4], "big")
    if magic >> 8 != 8 or not 1 <= magic & 255 <= 3:
        raise UsageError(f"mnist: {path} is not an IDX file (its first bytes are {data[:4].hex()})")
    shape = np.frombuffer(data, ">u4", magic & 255, offset=4).astype(int)
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
    if body.size != shape.prod():
        raise UsageError(f"mnist: {path} is truncated: {body.size:,} of {shape.prod():,} bytes; fetch it again")
    return body.reshape(shape)


def _read_mnist_npz(folder: Path, split: str) -> Arrays:
    """Keys train_images train_labels test_images test_labels, or Keras' x_train y_train x_test y_test."""
    with np.load(folder / "mnist.npz") as archive:
        keys = (f"{split}_images", f"{split}_labels") if f"{split}_images" in archive else (f"x_{split}", f"y_{split}")
        return archive[keys[0]][..., None], archive[keys[1]]


class _OnlyArrays(pickle.Unpickler):
    """Reads the published CIFAR pickles and nothing else: a pickle can otherwise run any code."""

    allowed = {("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str):
        if (module, name) in self.allowed:
            return super().find_class(module, name)
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return super().find_class("numpy._core.multiarray", name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR file")


def _read_pickles(names: tuple[str, ...], read_bytes: Callable[[str], bytes]) -> Arrays:
    batches = [_OnlyArrays(io.BytesIO(read_bytes(name)), encoding="latin1").load() for name in names]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([batch.get("labels", batch.get("fine_labels")) for batch in batches])
    return np.ascontiguousarray(images), labels


def _pickled(files: dict[str, tuple[str, ...]]) -> Callable[[Path, str], Arrays]:
    return lambda folder, split: _read_pickles(files[split], lambda name: (folder / name).read_bytes())


def _archived(archive: str, files: dict[str, tuple[str, ...]]) -> Callable[[Path, str], Arrays]:
    def read(folder: Path, split: str) -> Arrays:
        with tarfile.open(folder / archive) as tar:
            members = {Path(m.name).name: m for m in tar.getmembers() if m.isfile()}
            return _read_pickles(files[split], lambda name: tar.extractfile(members[name]).read())

    return read


def _read_jpeg_pack(folder: Path, split: str) -> Arrays:
    """One archive a split: all JPEG files after one another, where each begins, and the labels."""
    import torch
    from torchvision.io import decode_jpeg  # half the time of Pillow, for 60,000 small files

    with np.load(folder / f"{split}.npz") as archive:
        jpeg, offsets, labels = torch.from_numpy(archive["jpeg"]), archive["offsets"], archive["labels"]
    images = np.empty((len(labels), 32, 32, 3), np.uint8)

    def fill(i: int) -> None:
        try:
            images[i] = decode_jpeg(jpeg[offsets[i] : offsets[i + 1]]).permute(1, 2, 0).numpy()
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"cifar10: {folder / f'{split}.npz'} image {i}: {error}") from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(labels))))
    return images, labels


CIFAR10 = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CIFAR100 = {"train": ("train",), "test": ("test",)}
IDX = tuple(f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))
LAYOUTS = {
    "mnist": (
        Layout("the four IDX files (plain or .gz, also in MNIST/raw)", ("MNIST/raw", "raw", "."), IDX, _read_idx),
        Layout("mnist.npz", (".",), ("mnist.npz",), _read_mnist_npz),
    ),
    "cifar10": (
        Layout("cifar-10-batches-py/", ("cifar-10-batches-py", "."), sum(CIFAR10.values(), ()), _pickled(CIFAR10)),
        Layout(
            "cifar-10-python.tar.gz", (".",), ("cifar-10-python.tar.gz",), _archived("cifar-10-python.tar.gz", CIFAR10)
        ),
        Layout("cifar10-jpeg/{train,test}.npz", ("cifar10-jpeg", "."), ("train.npz", "test.npz"), _read_jpeg_pack),
    ),
    "cifar100": (
        Layout("cifar-100-python/", ("cifar-100-python", "."), sum(CIFAR100.values(), ()), _pickled(CIFAR100)),
        Layout(
            "cifar-100-python.tar.gz",
            (".",),
            ("cifar-100-python.tar.gz",),
            _archived("cifar-100-python.tar.gz", CIFAR100),
        ),
    ),
}
