"""FFCV files of FFCV's own writer are used as they are; what is not one is refused in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from ffcv.fields import FloatField, IntField, RGBImageField
from ffcv.writer import DatasetWriter

from research import cli
from research.config import Config
from research.data.choice import check, make_loader
from research.data.ffcv import beton
from research.data.ffcv.adopt import adopt
from research.errors import UsageError


class Pictures:
    """(image, label) for FFCV's writer: ``count`` pictures of ``side`` pixels of three classes."""

    def __init__(self, count=12, side=16, classes=3):
        random = np.random.default_rng(0)
        self.images = np.repeat(
            np.repeat(random.integers(0, 256, (count, side // 4, side // 4, 3), np.uint8), 4, 1), 4, 2
        )
        self.labels = np.arange(count) % classes

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], int(self.labels[i])


def written(path, pictures=None, mode="raw", label=None, name="image"):
    """A file of FFCV's own writer, as ffcv-imagenet's script calls it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = RGBImageField(write_mode=mode, max_resolution=500, compress_probability=0.5, jpeg_quality=90)
    writer = DatasetWriter(str(path), {name: image, "label": label or IntField()}, num_workers=1)
    writer.from_indexed_dataset(pictures or Pictures(), chunksize=4)
    return path


def test_a_file_of_another_writer_trains_as_it_is_and_nothing_of_it_changes(tmp_path):
    pictures, root = Pictures(), tmp_path / "data"
    files = {split: written(tmp_path / "theirs" / f"{split}_500_0.5_90.ffcv", pictures) for split in ("train", "val")}
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files.values()}
    for file in files.values():
        adopt(file, "imagefolder", root)
    given = {"image_size": 16, "eval_resize": 16, "normalize": False}
    config = Config(dataset="imagefolder", data_root=str(root), data_args=given, batch_size=4, loader="ffcv")
    assert (check(config).classes, check(config).train, check(config).val) == (3, 12, 12)
    found = [torch.cat(tensors) for tensors in zip(*make_loader(config, "val"), strict=True)]
    expected = torch.from_numpy(pictures.images).permute(0, 3, 1, 2) / 255
    assert torch.allclose(found[0], expected, atol=1e-6) and found[1].tolist() == pictures.labels.tolist()
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files.values()} == before
    assert beton.verify(root / "imagefolder-train.beton")["samples"] == 12
    assert sorted(file.name for file in (tmp_path / "theirs").iterdir()) == sorted(file.name for file in files.values())


@pytest.mark.parametrize(("mode", "told"), [("jpg", "jpg"), ("proportion", "mixed"), ("smart", "raw")])
def test_every_mode_of_the_writer_is_known(tmp_path, mode, told):
    found = adopt(written(tmp_path / "train.beton", mode=mode), "imagefolder", tmp_path / "data")
    assert (found.mode, found.samples, found.classes, found.channels) == (told, 12, ("0", "1", "2"), 3)
    assert beton.load(found.path) == found
    assert found.path.resolve() == tmp_path / "train.beton"


def test_a_file_that_has_its_name_already_is_described_where_it_lies(tmp_path, capsys):
    file = written(tmp_path / "imagefolder-train.beton")
    assert cli.main(["data", "adopt", str(file), "--dataset", "imagefolder", "--root", str(tmp_path)]) == 0
    assert "12" in capsys.readouterr().out and not file.is_symlink()
    assert json.loads((tmp_path / "imagefolder-train.beton.json").read_text())["split"] == "train"
    assert cli.main(["data", "adopt", str(file), "--dataset", "imagefolder", "--root", str(tmp_path)]) == 2
    assert "is described already" in capsys.readouterr().err


def cut(path):
    written(path)
    path.write_bytes(path.read_bytes()[:-5000])


def damaged(path):
    """Its JPEG files are zeros."""
    written(path, mode="jpg")
    from ffcv.reader import Reader

    reader, content = Reader(str(path)), bytearray(path.read_bytes())
    for place in reader.alloc_table:
        content[place["ptr"] : place["ptr"] + place["size"]] = bytes(int(place["size"]))
    path.write_bytes(content)


def elsewhere(path):
    """The last picture is said to lie beyond the end of the file."""
    written(path)
    from ffcv.reader import Reader

    reader, content = Reader(str(path)), bytearray(path.read_bytes())
    table = np.array(reader.alloc_table)
    table["size"][np.argmax(table["ptr"])] = 10**9
    content[int(reader.header["alloc_table_ptr"]) :] = table.tobytes()
    path.write_bytes(content)


REFUSED = [
    (lambda path: path.write_bytes(b"PK\3\4" * 2000), {}, "not an FFCV file that can be read"),
    (lambda path: path.write_bytes(b""), {}, "not an FFCV file that can be read"),
    (cut, {}, "train.beton: "),
    (elsewhere, {}, r"train.beton: truncated: sample \d+ is not in it \(1 such\)"),
    (damaged, {}, "train.beton: sample 0: its JPEG: not an image"),
    (lambda path: written(path, name="picture"), {}, r"holds picture \(RGBImageField\), label \(IntField\); expected"),
    (lambda path: written(path, label=FloatField()), {}, r"label \(FloatField\); expected image"),
    (written, {"dataset": "cifar10"}, "sample 0 has 16 x 16 pixels; those of cifar10 have 32 x 32"),
    (lambda path: written(path, Pictures(side=32, classes=11)), {"dataset": "cifar10"}, "has labels 0 to 10; those of"),
    (
        lambda path: written(path, Pictures(side=32)),
        {"dataset": "cifar10"},
        r"no sample has label 3 \(7 such below 10\)",
    ),
    (written, {"dataset": "imagefoldr"}, "did you mean 'imagefolder'"),
    (written, {"dataset": "linear"}, "is a set of vectors"),
    (lambda path: None, {}, "train.beton: no such file"),
    (lambda path: path.mkdir(), {}, "is a folder"),
]


@pytest.mark.parametrize(("make", "given", "told"), REFUSED)
def test_what_is_not_such_a_file_is_refused_in_one_line(tmp_path, make, given, told):
    make(tmp_path / "train.beton")
    with pytest.raises(UsageError, match=told) as error:
        adopt(**{"file": tmp_path / "train.beton", "dataset": "imagefolder", "root": tmp_path / "data"} | given)
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()


def test_a_split_is_said_and_belongs_to_the_other_and_nothing_is_replaced(tmp_path):
    root = tmp_path / "data"
    unnamed = written(tmp_path / "pictures.beton")
    with pytest.raises(UsageError, match="pictures.beton: does not say which split it holds; give --split train or"):
        adopt(unnamed, "imagefolder", root)
    adopt(unnamed, "imagefolder", root, "train")
    with pytest.raises(UsageError, match="has 2 classes, and .*imagefolder-train.beton has 3; they belong together"):
        adopt(written(tmp_path / "val.beton", Pictures(classes=2)), "imagefolder", root)
    shutil.copy(unnamed, root / "imagefolder-val.beton")
    with pytest.raises(UsageError, match="imagefolder-val.beton: exists, and is not .*val.beton; remove it first"):
        adopt(tmp_path / "val.beton", "imagefolder", root)
