"""ImageNet as it is handed out: the original tars, Kaggle's folders, and flat validation folders with their truth."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from research.data.layouts.trees import InTars, Tree, tar_members
from research.errors import UsageError

TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
KAGGLE = "Data/CLS-LOC/"
PICTURE = re.compile(r"ILSVRC2012_val_\d{8}\.\w+")  # of the validation set

Place = tuple[list[str], str]  # the parts of a file's place below its split, and its entry


def with_tars(home: Path, tree: Tree) -> Tree:
    """``tree`` of the folder ``home`` with what is in the original tars there; what is unpacked goes before its tar."""
    tars = InTars()
    for split, path in ((split, home / tar) for split, tar in TARS.items()):
        if path.is_file() and not (home / split).exists():
            members = tar_members(path, "imagenet", nested=split == "train")
            tars.add(path, ((f"{split}/{name.removeprefix('./')}", offset, size) for name, offset, size in members))
    for path in sorted((home / "train").glob("n*.tar")):  # the tar of tars, unpacked once
        if not path.with_suffix("").exists():
            members = tar_members(path, "imagenet")
            tars.add(path, ((f"train/{path.stem}/{name}", offset, size) for name, offset, size in members))
    if not tars.places:
        return tree
    return Tree(chain(tree.entries, tars.places), lambda file: (tars if file in tars.places else tree.read)(file))


def kaggle_folder(entries: Iterable[str]) -> str | None:
    """The folder of ``train/`` and ``val/`` in Kaggle's layout, with a slash at its end; None in any other."""
    found = next((entry for entry in entries if KAGGLE in entry), None)
    return found and found[: found.index(KAGGLE) + len(KAGGLE)]


def is_flat(places: Sequence[Place]) -> bool:
    """Whether the pictures of a split lie side by side, not in folders of classes."""
    files = [place for place, _ in places if place != [""]]
    return all(len(place) == 1 for place in files) and any(PICTURE.fullmatch(place[0]) for place in files)


def by_class(home: Path, flat: Sequence[Place], tree: Tree, classes: Sequence[str]) -> list[Place]:
    """``flat`` validation pictures as if each lay in the folder of its class, by the ground truth in ``tree``.

    ``classes`` are the sorted names of all classes, of which lists of numbers speak; empty if they are not known.

    Raises:
        UsageError: there is no ground truth, or it does not name the class of some picture.
    """
    files = {PurePosixPath(entry).name: entry for entry in tree.entries}
    source = next((name for name in SOURCES if name in files), None)
    if source is None:
        raise UsageError(
            f"imagenet: the pictures in val/ of {home} lie in no folders of classes; put Kaggle's LOC_val_solution.csv "
            f"or {DEVKIT} (from https://image-net.org/download) into {home}"
        )
    try:
        truth = SOURCES[source](files, tree.read, classes)
    except Exception as error:  # a damaged file raises anything
        raise UsageError(
            f"imagenet: {files[source]} in {home} is no ground truth ({type(error).__name__}: {error})"
        ) from error
    pictures = [(place[0], PurePosixPath(place[0]).stem, entry) for place, entry in flat if PICTURE.fullmatch(place[0])]
    if unknown := [file for file, stem, _ in pictures if stem not in truth]:
        raise UsageError(f"imagenet: {files[source]} names no class of {unknown[0]} ({len(unknown)} such in val/)")
    return [([truth[stem], file], entry) for file, stem, entry in pictures]


Files, Read = Mapping[str, str], Callable[[str], bytes]


def _kaggle(files: Files, read: Read, classes: Sequence[str]) -> dict[str, str]:
    """``ImageId,PredictionString``, the latter one or more boxes that begin with their wnid."""
    rows = (line.split(",", 1) for line in read(files["LOC_val_solution.csv"]).decode().splitlines()[1:] if line)
    return {image: boxes.split()[0] for image, boxes in rows}


def _synsets(files: Files, read: Read, classes: Sequence[str]) -> dict[str, str]:
    """TensorFlow's list: a wnid a line, in the order of the pictures."""
    return _in_order(read(files["imagenet_2012_validation_synset_labels.txt"]).decode().split())


def _devkit(files: Files, read: Read, classes: Sequence[str]) -> dict[str, str]:
    return _ground_truth(read(files[TRUTH]), read(files["meta.mat"]))


def _packed_devkit(files: Files, read: Read, classes: Sequence[str]) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(read(files[DEVKIT])), mode="r:gz") as archive:
        members = {PurePosixPath(member.name).name: member for member in archive if member.isfile()}
        return _ground_truth(*(archive.extractfile(members[name]).read() for name in (TRUTH, "meta.mat")))


def _ground_truth(ids: bytes, meta: bytes) -> dict[str, str]:
    """The devkit's files: an ILSVRC2012 id a line, in the order of the pictures, and the wnid of each id."""
    from scipy.io import loadmat  # only this layout needs it

    synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
    wnids = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    return _in_order([wnids[int(number)] for number in ids.decode().split()])


def _caffe(files: Files, read: Read, classes: Sequence[str]) -> dict[str, str]:
    """Caffe's list, which GraM's trainer has as meta/val.txt: a picture and the number of its class a line."""
    rows = (line.split() for line in read(files["val.txt"]).decode().splitlines() if line)
    return {PurePosixPath(image).stem: classes[int(number)] for image, number in rows}


def _in_order(wnids: Sequence[str]) -> dict[str, str]:
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(wnids, start=1)}


SOURCES = {
    "LOC_val_solution.csv": _kaggle,
    TRUTH: _devkit,
    DEVKIT: _packed_devkit,
    "imagenet_2012_validation_synset_labels.txt": _synsets,
    "val.txt": _caffe,
}
