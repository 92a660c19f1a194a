"""ImageNet and shards as people have them: read where they lie, or refused with what makes them readable."""

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from research.config import Config
from research.data import folders
from research.data.choice import check, make_loader
from research.data.layouts import imagenet
from research.errors import UsageError

WNIDS = ("n01440764", "n01443537", "n01484850")
IDS = {"n01440764": 2, "n01443537": 3, "n01484850": 1}  # of the devkit: another order than the names
VAL = ("n01484850", "n01440764", "n01443537", "n01440764")  # of picture 1, 2, ...


def jpeg(wnid: str, number: int = 0) -> bytes:
    """A picture whose grey tells its class."""
    file = io.BytesIO()
    Image.new("RGB", (12 + number, 10), (60 * WNIDS.index(wnid),) * 3).save(file, "jpeg", quality=95)
    return file.getvalue()


def put(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def train_folders(folder: Path) -> None:
    for wnid in WNIDS:
        for number in range(3):
            put(folder / wnid / f"{wnid}_{number}.JPEG", jpeg(wnid, number))


def flat_val(folder: Path) -> None:
    for number, wnid in enumerate(VAL, start=1):
        put(folder / f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(wnid))


def kaggle(root: Path) -> Path:
    place = root / "ILSVRC/Data/CLS-LOC"
    train_folders(place / "train")
    flat_val(place / "val")
    put(place / "test/ILSVRC2012_test_00000001.JPEG", jpeg(WNIDS[0]))
    put(root / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", b"<annotation/>")
    rows = [f"ILSVRC2012_val_{n:08d},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for n, wnid in reversed([*enumerate(VAL, 1)])]
    put(root / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows, ""]).encode())
    return root


def devkit(folder: Path) -> None:
    numbers = "".join(f"{IDS[wnid]}\n" for wnid in VAL)
    put(folder / "data" / imagenet.TRUTH, numbers.encode())
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = np.array([*((i, wnid, "a, b", 0) for wnid, i in IDS.items()), (4, "n00001740", "entity", 2)], kind)
    savemat(folder / "data" / "meta.mat", {"synsets": synsets})


def packed(archive: Path, folder: Path, mode: str = "w:") -> None:
    with tarfile.open(archive, mode) as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, file.relative_to(folder), recursive=False)


def original_tars(root: Path) -> None:
    train_folders(root / "t")
    (root / "c").mkdir()
    for wnid in WNIDS:
        packed(root / "c" / f"{wnid}.tar", root / "t" / wnid)
    packed(root / imagenet.TARS["train"], root / "c")
    flat_val(root / "v")
    packed(root / imagenet.TARS["val"], root / "v")
    devkit(root / "d" / "ILSVRC2012_devkit_t12")
    packed(root / imagenet.DEVKIT, root / "d", "w:gz")
    for folder in "tcvd":
        shutil.rmtree(root / folder)


def assert_is_imagenet(root: Path) -> None:
    """Both splits, each picture under its own class."""
    found = folders.find("imagenet", root)
    assert found["train"].classes == found["val"].classes == WNIDS
    assert (len(found["train"]), len(found["val"])) == (9, 4)
    for pictures in found.values():
        for i, label in enumerate(pictures.labels):
            assert abs(int(pictures.decoded(i)[5, 5, 0]) - 60 * label) < 4
    assert sorted(found["val"].labels) == sorted(WNIDS.index(wnid) for wnid in VAL)


def test_the_layout_of_kaggle_is_read_as_a_folder_and_as_its_zip(tmp_path):
    assert_is_imagenet(kaggle(tmp_path / "folder"))
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "challenge.zip", "w") as archive:
        for file in (tmp_path / "folder").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path / "folder"))
    assert_is_imagenet(tmp_path / "zip")


def truth_of_tensorflow(root: Path) -> None:
    put(root / "imagenet_2012_validation_synset_labels.txt", "\n".join(VAL).encode())


def truth_of_caffe(root: Path) -> None:
    lines = [f"ILSVRC2012_val_{n:08d}.JPEG {WNIDS.index(wnid)}\n" for n, wnid in enumerate(VAL, start=1)]
    put(root / "meta" / "val.txt", "".join(lines).encode())


@pytest.mark.parametrize(
    "truth", [lambda root: devkit(root / "ILSVRC2012_devkit_t12"), truth_of_tensorflow, truth_of_caffe]
)
@pytest.mark.parametrize("val", ["val", "validation"])
def test_a_flat_validation_folder_is_read_with_any_ground_truth(tmp_path, truth, val):
    train_folders(tmp_path / "train")
    flat_val(tmp_path / val)
    truth(tmp_path)
    assert_is_imagenet(tmp_path)


def test_the_original_tars_are_read_where_they_lie(tmp_path):
    original_tars(tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert set(before) == {*imagenet.TARS.values(), imagenet.DEVKIT}
    assert_is_imagenet(tmp_path)
    config = Config(dataset="imagenet", data_root=str(tmp_path), data_args={"image_size": 8}, batch_size=3)
    assert [check(config).train, check(config).val] == [9, 4]
    assert len(list(make_loader(config, "train"))) == 3
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_an_unpacked_split_goes_before_its_tar(tmp_path):
    original_tars(tmp_path)
    (tmp_path / imagenet.TARS["train"]).unlink()
    train_folders(tmp_path / "train")
    assert_is_imagenet(tmp_path)
    put(tmp_path / imagenet.TARS["train"], b"never opened")
    assert_is_imagenet(tmp_path)


def test_tars_of_classes_are_read_where_the_tar_of_tars_was_unpacked(tmp_path):
    original_tars(tmp_path)
    with tarfile.open(tmp_path / imagenet.TARS["train"]) as tar:
        tar.extractall(tmp_path / "train", filter="data")
    assert [file.suffix for file in (tmp_path / "train").iterdir()] == [".tar"] * 3
    assert_is_imagenet(tmp_path)


def without_truth(root):
    kaggle(root)
    (root / "LOC_val_solution.csv").unlink()


def another_picture(root):
    kaggle(root)
    put(root / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000009.JPEG", jpeg(WNIDS[0]))


def damaged_truth(root):
    original_tars(root)
    put(root / imagenet.DEVKIT, (root / imagenet.DEVKIT).read_bytes()[:-400])


def cut_tar(root):
    original_tars(root)
    put(root / imagenet.TARS["train"], (root / imagenet.TARS["train"]).read_bytes()[:25_000])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (without_truth, "in no folders of classes; put Kaggle's LOC_val_solution.csv or ILSVRC2012_devkit"),
        (another_picture, r"LOC_val_solution.csv names no class of ILSVRC2012_val_00000009.JPEG \(1 such in val/\)"),
        (damaged_truth, "ILSVRC2012_devkit_t12.tar.gz in .* is no ground truth"),
        (cut_tar, "ILSVRC2012_img_train.tar cannot be read as a tar file .*; fetch it again"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_says_what_is_needed(tmp_path, make, told):
    make(tmp_path)
    with pytest.raises(UsageError, match=told) as error:
        folders.find("imagenet", tmp_path)
    assert "\n" not in str(error.value)


# -- shards -------------------------------------------------------------------------------------------------------


def shard(path: Path, samples: list[tuple[str, int | str | None]]) -> None:
    """A webdataset shard of (key, class)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:") as tar:
        for key, label in samples:
            grey = jpeg(WNIDS[label]) if isinstance(label, int) else jpeg(WNIDS[0])
            files = {"jpg": grey, "json": b"{}"} | ({} if label is None else {"cls": str(label).encode()})
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("names", [("some-train-{}.tar", "some-validation-{}.tar"), ("train/{}.tar", "val/{}.tar")])
@pytest.mark.parametrize("dataset", ["imagenet", "imagefolder"])
def test_shards_are_read_where_they_lie(tmp_path, names, dataset):
    train, val = names
    shard(tmp_path / train.format("0000"), [("a.b/x", 1), ("b", 0), ("c", 2)])
    shard(tmp_path / train.format("0001"), [("a", 2), ("b", 0)])
    shard(tmp_path / val.format("0000"), [("a", 2)])
    found = folders.find(dataset, tmp_path)
    assert found["train"].classes == ("0", "1", "2")
    assert (found["train"].labels.tolist(), found["val"].labels.tolist()) == ([0, 0, 1, 2, 2], [2])
    for pictures in found.values():
        for i, label in enumerate(pictures.labels):
            assert abs(int(pictures.decoded(i)[5, 5, 0]) - 60 * label) < 4


def test_shards_without_splits_hold_one_in_five_out(tmp_path):
    shard(tmp_path / "0.tar", [(str(i), i % 3) for i in range(15)])
    found = folders.find("imagefolder", tmp_path)
    assert (len(found["train"]), len(found["val"])) == (12, 3)


@pytest.mark.parametrize(
    ("shards", "told"),
    [
        ({"train.tar": [("a", 0), ("b", None)], "val.tar": [("a", 0)]}, "train.tar: b.jpg has no b.cls; expected"),
        ({"train.tar": [("a", "cat")], "val.tar": [("a", 0)]}, "train.tar: a.jpg has the class 'cat'; expected"),
        ({"train.tar": [("a", 0), ("b", 2)], "val.tar": [("a", 0)]}, "no sample in the shards of .* has class 1"),
        ({"train.tar": [("a", 0)], "0.tar": [("a", 0)]}, "0.tar does not say its split as other shards do"),
    ],
)  # fmt: skip
def test_shards_that_do_not_say_what_is_needed_are_refused(tmp_path, shards, told):
    for name, samples in shards.items():
        shard(tmp_path / name, samples)
    with pytest.raises(UsageError, match=told):
        folders.find("imagefolder", tmp_path)


def test_compressed_shards_are_refused_with_the_command_that_makes_them_readable(tmp_path):
    shard(tmp_path / "train.tar", [("a", 0), ("b", 1)])
    packed = tmp_path / "train.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "train.tar").read_bytes()))
    (tmp_path / "train.tar").unlink()
    with pytest.raises(UsageError, match=f"`gunzip {packed}` makes it readable"):
        folders.find("imagefolder", tmp_path)


def test_shards_of_the_library_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "train.tar")) as writer:
        for i in range(4):
            writer.write({"__key__": f"{i:04d}", "jpg": jpeg(WNIDS[i % 2]), "cls": i % 2})
    shutil.copy(tmp_path / "train.tar", tmp_path / "val.tar")
    assert folders.find("imagefolder", tmp_path)["val"].labels.tolist() == [0, 0, 1, 1]
