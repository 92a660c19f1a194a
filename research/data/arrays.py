"""MNIST and CIFAR from the files people have; the table LAYOUTS lists what is accepted."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from research.data import synthetic
from research.data.augment import held_out
from research.data.datasets import DATASETS, contents, data_root, homes
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
        return next((p for p in places if all(_existing(p / file) for file in self.files)), None)


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


def _existing(path: Path) -> Path | None:
    """``path`` or its gzipped form."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _read_idx(folder: Path, split: str) -> Arrays:
    """Yann LeCun's format: big-endian 0x0800 + dimensions, then the size of each, then the bytes."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images, labels = (_idx(_existing(folder / f"{prefix}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    return images[..., None], labels


def _idx(path: Path) -> np.ndarray:
    with _Bounded(gzip.open(path) if path.suffix == ".gz" else path.open("rb"), path) as file:
        data = file.read(LARGEST_FILE)
        if file.read(1):
            raise UsageError(f"mnist: {path} holds more than {LARGEST_FILE:,} bytes, not MNIST; fetch it again")
    magic = int.from_bytes(data[:4], "big")
    if magic >> 8 != 8 or not 1 <= magic & 255 <= 3:
        raise UsageError(f"mnist: {path} is not an IDX file (its first bytes are {data[:4].hex()})")
    shape = np.frombuffer(data, ">u4", magic & 255, offset=4).astype(int)
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
    if body.size != shape.prod():
        raise UsageError(f"mnist: {path} is truncated: {body.size:,} of {shape.prod():,} bytes; fetch it again")
    return body.reshape(shape)


class _Bounded(io.RawIOBase):
    """A file, compressed or not, from which never more is inflated than the data set needs."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > LARGEST_FILE or self.file.tell() + size > LARGEST_ARCHIVE:
            raise UsageError(f"{self.path}: holds more than {LARGEST_FILE:,} bytes in one piece; fetch it again")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > LARGEST_ARCHIVE:
            raise UsageError(f"{self.path}: holds more than {LARGEST_ARCHIVE:,} bytes; fetch it again")
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        super().close()


def _npz(path: Path, *names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays in ``path``, each under the first of its ``names`` that exists; nothing too large is inflated."""
    with zipfile.ZipFile(path) as archive:
        if (total := sum(member.file_size for member in archive.infolist())) > LARGEST_ARCHIVE:
            raise UsageError(f"{path}: holds {total:,} bytes, more than {LARGEST_ARCHIVE:,}; fetch it again")
    with np.load(path) as archive:
        return [archive[next((name for name in own if name in archive), own[0])] for own in names]


def _read_mnist_npz(folder: Path, split: str) -> Arrays:
    """Keys train_images train_labels test_images test_labels, or Keras' x_train y_train x_test y_test."""
    keys = (f"{split}_images", f"x_{split}"), (f"{split}_labels", f"y_{split}")
    images, labels = _npz(folder / "mnist.npz", *keys)
    return images[..., None], labels


class _Pixels:
    """Stands in for a pickled array of bytes: its shape and content, checked before an array is made."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content  # as Python 2 wrote it
        sizes = [size for size in shape if type(size) is int and size >= 0]
        if type(dtype) is not _Bytes or fortran or type(content) is not bytes or len(sizes) != len(shape):
            raise pickle.UnpicklingError("an array that is not of bytes does not belong in a CIFAR file")
        self.array = np.frombuffer(content, np.uint8).reshape(sizes)


class _Bytes:
    """Stands in for the type of a pickled array: bytes; every other type is refused."""

    def __init__(self, code: str, *_: object):
        if code not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array of {code!r} does not belong in a CIFAR file")

    def __setstate__(self, state: tuple) -> None:
        """Ignore byte order and the like, which bytes do not have."""


class _OnlyPixels(pickle.Unpickler):
    """Reads the published CIFAR pickles: numbers, text, lists, and arrays of bytes; nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
            ("numpy", "ndarray"): "ndarray",  # only what _reconstruct is asked to make
            ("numpy", "dtype"): _Bytes,
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Pixels(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Pixels(),
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a CIFAR file")
        return known[module, name]


Batches = Iterator[tuple[str, bytes]]  # names and contents of a split's pickles, in any order


def _unpickled(content: bytes) -> Arrays:
    """Images (N, 3072) uint8 and labels (N,) of one published pickle."""
    batch = _OnlyPixels(io.BytesIO(content), encoding="latin1").load()
    images, labels = batch["data"].array, batch.get("labels", batch.get("fine_labels"))
    if type(labels) is not list or not all(type(label) is int for label in labels):
        raise pickle.UnpicklingError("labels that are not whole numbers do not belong in a CIFAR file")
    if images.shape != (len(labels), 3072):
        raise pickle.UnpicklingError(f"{images.shape} pixels and {len(labels)} labels do not belong in a CIFAR file")
    return images, np.array(labels)


def _pickles(name: str, expected: str, batches: Callable[[Path, str], Batches]) -> Layout:
    """The layout of published pickles that ``batches`` finds: a folder of them, or the archive of the folder."""

    def unpickled(folder: Path, split: str, part: slice) -> list[np.ndarray]:
        found = {file: _unpickled(content)[part] for file, content in batches(folder, split)}
        return [np.concatenate(arrays) for arrays in zip(*(found[file] for file in PICKLES[name][split]), strict=True)]

    def read(folder: Path, split: str) -> Arrays:
        images, labels = unpickled(folder, split, slice(None))
        return np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels

    def read_labels(folder: Path, split: str) -> np.ndarray:
        return unpickled(folder, split, slice(1, None))[0]

    own = (".",) if expected.endswith(".gz") else (expected.rstrip("/"), ".")
    files = (expected,) if expected.endswith(".gz") else sum(PICKLES[name].values(), ())
    return Layout(expected, own, files, read, read_labels)


def _in_folder(name: str) -> Callable[[Path, str], Batches]:
    def batches(folder: Path, split: str) -> Batches:
        for file in PICKLES[name][split]:
            if (size := (folder / file).stat().st_size) > LARGEST_FILE:
                raise UsageError(f"{folder / file}: {size:,} bytes are more than CIFAR has; fetch it again")
            yield file, (folder / file).read_bytes()

    return batches


def _in_archive(name: str, archive: str) -> Callable[[Path, str], Batches]:
    def batches(folder: Path, split: str) -> Batches:
        with (
            _Bounded(gzip.open(folder / archive), folder / archive) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for member in tar:
                if member.isfile() and Path(member.name).name in PICKLES[name][split]:
                    yield Path(member.name).name, tar.extractfile(member).read()

    return batches


def _read_jpeg_pack(folder: Path, split: str) -> Arrays:
    """One archive per split: all JPEG files one after another, their offsets, and the labels."""
    import torch
    from torchvision.io import decode_jpeg  # half the time of Pillow, for 60,000 small files

    jpeg, offsets, labels = _npz(folder / f"{split}.npz", ("jpeg",), ("offsets",), ("labels",))
    jpeg = torch.from_numpy(jpeg)
    images = np.empty((len(labels), 32, 32, 3), np.uint8)

    def fill(i: int) -> None:
        content = jpeg[offsets[i] : offsets[i + 1]]
        try:
            if (size := _jpeg_size(content.numpy().tobytes())) != (32, 32):  # looked at before memory is taken for it
                raise ValueError(f"is {size[0]} x {size[1]} pixels, expected 32 x 32")
            images[i] = decode_jpeg(content).permute(1, 2, 0).numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(f"cifar10: {folder / f'{split}.npz'} image {i}: {error}") from error

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(labels))))
    return images, labels


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width in a JPEG file's header (its frame segment, ITU T.81 B.2.2)."""
    at = 2
    while jpeg[at + 1] not in (0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)):
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 7 : at + 9], "big")


CIFAR10 = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CIFAR100 = {"train": ("train",), "test": ("test",)}
PICKLES = {"cifar10": CIFAR10, "cifar100": CIFAR100}
IDX = tuple(f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))
LAYOUTS = {
    "mnist": (
        Layout("the four IDX files (plain or .gz, also in MNIST/raw)", ("MNIST/raw", "raw", "."), IDX, _read_idx),
        Layout("mnist.npz", (".",), ("mnist.npz",), _read_mnist_npz),
    ),
    "cifar10": (
        _pickles("cifar10", "cifar-10-batches-py/", _in_folder("cifar10")),
        _pickles("cifar10", "cifar-10-python.tar.gz", _in_archive("cifar10", "cifar-10-python.tar.gz")),
        Layout(
            "cifar10-jpeg/{train,test}.npz",
            ("cifar10-jpeg", "."),
            ("train.npz", "test.npz"),
            _read_jpeg_pack,
            lambda folder, split: _npz(folder / f"{split}.npz", ("labels",))[0],
        ),
    ),
    "cifar100": (
        _pickles("cifar100", "cifar-100-python/", _in_folder("cifar100")),
        _pickles("cifar100", "cifar-100-python.tar.gz", _in_archive("cifar100", "cifar-100-python.tar.gz")),
    ),
}
