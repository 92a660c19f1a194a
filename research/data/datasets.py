"""The data sets by name: their contents, augmentation and place on disk. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from research.data.augment import Augment
from research.data.synthetic import Segments
from research.errors import UsageError, nearest
from research.parameters.signatures import check_arguments


@dataclass(frozen=True)
class Dataset:
    """A data set as it is known before its files are read.

    ``kind`` says what its samples are: ``"images"`` of one size (arrays), image files in a ``"folder"``, or
    ``"vectors"``. ``mean`` and ``std`` are per channel on the 0..1 scale. ``classes`` 0 = counted on disk.
    ``remedy`` ends the error line when the files are missing. ``read`` is of a set of ``"images"`` whose files this
    package cannot read: (folder of the data, ``"train"`` or ``"val"``) -> images (N, H, W, C) uint8, labels (N,).
    """

    name: str
    kind: str
    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    summary: str
    augment: Mapping[str, Any] = field(default_factory=dict)
    embedded: bool = False
    remedy: str = ""
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]] | None = None


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IMAGENET_AUGMENT = {"crop": "resized", "flip": True, "image_size": 224, "eval_resize": 256}
CIFAR_AUGMENT = {"crop": "pad", "padding": 4, "flip": True}
CIFAR_MEAN = (0.49139968, 0.48215827, 0.44653124)
CIFAR_STD = (0.24703233, 0.24348505, 0.26158768)
DOWNLOAD = "give data_root=FOLDER that holds it, or fetch it with download=true"


def _cifar(classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Dataset:
    return Dataset(
        name=f"cifar{classes}",
        kind="images",
        classes=classes,
        shape=(3, 32, 32),
        mean=mean,
        std=std,
        summary=f"60,000 pictures of {classes} things",
        augment=CIFAR_AUGMENT,
        remedy=DOWNLOAD,
    )


def _folders(name: str, summary: str, remedy: str) -> Dataset:
    """Folders of pictures, seen as ImageNet's are."""
    return Dataset(
        name=name,
        kind="folder",
        classes=0,
        shape=(3, 224, 224),
        **IMAGENET,
        summary=summary,
        augment=IMAGENET_AUGMENT,
        remedy=remedy,
    )


DATASETS = {
    d.name: d
    for d in (
        Dataset(
            name="digits",
            kind="images",
            classes=10,
            shape=(1, 8, 8),
            mean=(0.3055,),
            std=(0.3761,),
            summary="scikit-learn's 1,797 handwritten digits, 8x8",
            embedded=True,
        ),
        Dataset("linear", "vectors", 2, (2,), (0.0,), (1.0,), "points on a line, labelled by segment", embedded=True),
        Dataset("circle", "vectors", 2, (2,), (0.0,), (1.0,), "points in a disc, labelled by ring", embedded=True),
        Dataset("mnist", "images", 10, (1, 28, 28), (0.1307,), (0.3081,), "70,000 handwritten digits", remedy=DOWNLOAD),
        _cifar(10, CIFAR_MEAN, CIFAR_STD),
        _cifar(100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        _folders(
            "imagenet",
            summary="ILSVRC folders train/<wnid>, val/<wnid>; also <wnid> folders alone or zipped",
            remedy="give data_root=FOLDER with train/<wnid>/*.JPEG and val/<wnid>/*.JPEG "
            "(from https://image-net.org/download)",
        ),
        _folders(
            "imagefolder",
            summary="any folder of pictures: train/<class>, val/<class>, or <class> with every fifth held out",
            remedy="give data_root=FOLDER that holds one folder of pictures a class",
        ),
    )
}


def describe(name: str) -> Dataset:
    """The data set called ``name``, or UsageError with the nearest name."""
    if name not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}{nearest(name, DATASETS)}")
    return DATASETS[name]


def arguments(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The complete ``data_args`` of a data set (defaults filled in) and one line for every problem."""
    dataset = describe(name)
    if dataset.kind == "vectors":
        return check_arguments("data_args.", Segments, given)
    values, problems = check_arguments("data_args.", Augment, {**dataset.augment, **given})
    if not problems:
        problems += [f"data_args: {problem}" for problem in Augment(**values).contradictions(dataset)]
    return values, problems


def data_without_effect(name: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The ``data_args`` among ``given`` without effect, with the reason; defaults that are given do not count."""
    dataset = describe(name)
    if dataset.kind == "vectors":
        return {}
    values, problems = arguments(name, given)
    idle = {} if problems else Augment(**values).without_effect()
    defaults = asdict(Augment(**dataset.augment))
    return {key: reason for key, reason in idle.items() if key in given and values[key] != defaults[key]}


def classes_and_shape(name: str, data_args: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Classes and input shape (C, H, W) of a data set as it is augmented, known before it is read.

    Raises:
        UsageError: its classes are counted on disk.
    """
    classes = describe(name).classes or {"imagenet": 1000}.get(name)
    if not classes:
        raise UsageError(f"{name}: its classes are not known without its files")
    return classes, input_shape(name, data_args)


def input_shape(name: str, data_args: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of one input, (C, H, W) of an image as it is augmented, or the length of a vector."""
    dataset = describe(name)
    if dataset.kind == "vectors":
        return dataset.shape
    side = Augment(**arguments(name, data_args)[0]).size(dataset)
    return dataset.shape[0], side, side


def check_dataset(name: str, data_args: Mapping[str, Any]) -> list[str]:
    """Problems of a data set's name and arguments, without looking at the disk."""
    if name not in DATASETS:
        return [f"unknown dataset {name!r}{nearest(name, DATASETS)}"]
    return arguments(name, data_args)[1]


def data_root(root: str | Path = "") -> Path:
    """The folder of data: ``root``, else ``$RESEARCH_DATA``, else ``./data``."""
    return Path(root or os.environ.get("RESEARCH_DATA") or "data").expanduser()


def homes(name: str, root: str | Path = "") -> list[Path]:
    """Where a data set may be: the root's folder of that name and the root itself. UsageError without a root."""
    base = data_root(root)
    dataset = describe(name)
    if not base.exists():
        given = "" if root else " (data_root is not set)"
        raise UsageError(f"{name}: no folder {str(base)!r}{given}; {dataset.remedy}")
    return [home for home in (base / name, base) if home.exists()]


def contents(place: Path) -> str:
    """The contents of ``place``, in a few words, for an error line."""
    if not place.is_dir():
        return "a file"
    there = sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
    return ", ".join(there[:6]) + (" …" if len(there) > 6 else "") or "nothing"
