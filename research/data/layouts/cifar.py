"""CIFAR: the published pickles and binary files, as folders or archives, Keras' arrays, and a pack of JPEG files."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from research.data.layouts.layout import Arrays, Bounded, Layout, bounded_content, keras_npz, npz
from research.errors import UsageError


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


def _unpickled(content: bytes) -> Arrays:
    """Images (N, 3072) uint8 and labels (N,) of one published pickle."""
    batch = _OnlyPixels(io.BytesIO(content), encoding="latin1").load()
    images, labels = batch["data"].array, batch.get("labels", batch.get("fine_labels"))
    if type(labels) is not list or not all(type(label) is int for label in labels):
        raise pickle.UnpicklingError("labels that are not whole numbers do not belong in a CIFAR file")
    if images.shape != (len(labels), 3072):
        raise pickle.UnpicklingError(f"{images.shape} pixels and {len(labels)} labels do not belong in a CIFAR file")
    return images, np.array(labels)


def _records(labels: int) -> Callable[[bytes], Arrays]:
    """What reads a published binary file: each image's ``labels`` bytes of labels, the finest last, and 3072 pixels."""

    def read(content: bytes) -> Arrays:
        records = np.frombuffer(content, np.uint8)
        if len(records) % (labels + 3072):
            raise ValueError(f"{len(records):,} bytes are not whole records of {labels + 3072}")
        records = records.reshape(-1, labels + 3072)
        return records[:, labels:], records[:, labels - 1].astype(np.int64)

    return read


Batches = Iterator[tuple[str, bytes]]  # names and contents of a split's files, in any order


def _published(folder: str, archive: str, files: dict[str, tuple[str, ...]], read: Callable[[bytes], Arrays]):
    """The layouts of published files: their ``folder``, and the ``archive`` of it; ``read`` reads one of them."""

    def in_folder(home: Path, split: str) -> Batches:
        return ((file, bounded_content(home / file)) for file in files[split])

    def in_archive(home: Path, split: str) -> Batches:
        with Bounded(gzip.open(home / archive), home / archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and Path(member.name).name in files[split]:
                    yield Path(member.name).name, tar.extractfile(member).read()

    def layout(expected: str, folders: tuple[str, ...], needed: tuple[str, ...], batches) -> Layout:
        def parts(home: Path, split: str, part: slice) -> list[np.ndarray]:
            found = {file: read(content)[part] for file, content in batches(home, split)}
            return [np.concatenate(arrays) for arrays in zip(*(found[file] for file in files[split]), strict=True)]

        def images_and_labels(home: Path, split: str) -> Arrays:
            images, labels = parts(home, split, slice(None))
            return np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels

        return Layout(
            expected, folders, needed, images_and_labels, lambda home, split: parts(home, split, slice(1, None))[0]
        )

    return (
        layout(f"{folder}/", (folder, "."), sum(files.values(), ()), in_folder),
        layout(archive, (".",), (archive,), in_archive),
    )


def _read_jpeg_pack(folder: Path, split: str) -> Arrays:
    """One archive per split: all JPEG files one after another, their offsets, and the labels."""
    import torch
    from torchvision.io import decode_jpeg  # half the time of Pillow, for 60,000 small files

    jpeg, offsets, labels = npz(folder / f"{split}.npz", ("jpeg",), ("offsets",), ("labels",))
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


PICKLES10 = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
PICKLES100 = {"train": ("train",), "test": ("test",)}


def _binary(pickles: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {split: tuple(f"{file}.bin" for file in files) for split, files in pickles.items()}


LAYOUTS10 = (
    *_published("cifar-10-batches-py", "cifar-10-python.tar.gz", PICKLES10, _unpickled),
    *_published("cifar-10-batches-bin", "cifar-10-binary.tar.gz", _binary(PICKLES10), _records(1)),
    keras_npz("cifar10"),
    Layout(
        "cifar10-jpeg/{train,test}.npz",
        ("cifar10-jpeg", "."),
        ("train.npz", "test.npz"),
        _read_jpeg_pack,
        lambda folder, split: npz(folder / f"{split}.npz", ("labels",))[0],
    ),
)
LAYOUTS100 = (
    *_published("cifar-100-python", "cifar-100-python.tar.gz", PICKLES100, _unpickled),
    *_published("cifar-100-binary", "cifar-100-binary.tar.gz", _binary(PICKLES100), _records(2)),
    keras_npz("cifar100"),
)
