"""FFCV files: complete or absent, known by what they hold, and no failure of FFCV is lost."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from research.cli import main
from research.config import Config
from research.data.choice import check, make_loader
from research.data.ffcv import beton
from research.errors import UsageError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of 12 pictures of which 2 are unreadable, written with --skip-bad; and its FFCV files."""
    root, out = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("out")
    random = np.random.default_rng(0)
    for i in range(12):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i:02}.png")
    for name in ("a/04.png", "b/07.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    beton.write("imagefolder", root, out, skip_bad=True)
    return root, out


def test_every_unreadable_picture_is_named_and_nothing_is_written(written, tmp_path):
    with pytest.raises(UsageError) as error:
        beton.write("imagefolder", written[0], tmp_path)
    assert "2 unreadable picture(s)" in str(error.value)
    assert "a/04.png: " in str(error.value) and "b/07.png: " in str(error.value)
    assert not list(tmp_path.iterdir())


def test_skipped_pictures_are_left_out_counted_and_listed(written):
    found = [beton.load(written[1] / f"imagefolder-{split}.beton") for split in ("train", "val")]
    assert sum(f.samples for f in found) == 10
    assert {reason.split(":")[0] for f in found for reason in f.skipped} == {"a/04.png", "b/07.png"}
    assert {row["split"]: row["samples"] for row in beton.list_betons(written[1])} == {
        f.split: f.samples for f in found
    }


def test_an_existing_file_is_never_overwritten(written):
    path = written[1] / "imagefolder-train.beton"
    before = path.stat().st_mtime_ns
    with pytest.raises(UsageError, match="imagefolder-train.beton: exists"):
        beton.write("imagefolder", written[0], written[1], skip_bad=True)
    assert path.stat().st_mtime_ns == before


def test_verify_accepts_what_was_written_and_finds_one_flipped_bit(written, tmp_path):
    path, copy = written[1] / "imagefolder-train.beton", tmp_path / "imagefolder-train.beton"
    assert beton.verify(path)["samples"] == beton.load(path).samples
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    copy.with_name(copy.name + ".json").write_text(path.with_name(path.name + ".json").read_text())
    with pytest.raises(UsageError, match="damaged: checksum"):
        beton.verify(copy)


def broken(written, folder, change):
    """A copy of the FFCV files in ``folder`` whose training file or description ``change(file, described)`` altered."""
    for path in written[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    file = folder / "imagefolder-train.beton"
    side = file.with_name(file.name + ".json")
    told = json.loads(side.read_text())
    change(file, told)
    side.write_text(json.dumps(told))
    return Config(dataset="imagefolder", data_root=str(folder), loader="ffcv", batch_size=2)


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda file, told: file.write_bytes(file.read_bytes()[:-1000]), "truncated or changed"),
        (lambda file, told: told.update(dataset="cifar10"), "holds cifar10 train, not imagefolder train"),
        (lambda file, told: told.pop("classes"), "not a description of an FFCV file"),
        (lambda file, told: told.update(bytes="many"), "not a description of an FFCV file .bytes='many': expected int"),
        (lambda file, told: told.update(classes=3), "not a description of an FFCV file .classes=3: expected a list"),
        (lambda file, told: told.update(colour=1), "not a description of an FFCV file .unknown parameter 'colour'"),
        (lambda file, told: file.unlink(), "run `research data write imagefolder"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_before_a_run(written, tmp_path, change, problem):
    with pytest.raises(UsageError, match=problem):
        check(broken(written, tmp_path, change))


def test_a_file_without_description_is_refused(written, tmp_path):
    (tmp_path / "x.beton").write_bytes(b"")
    with pytest.raises(UsageError, match="its description x.beton.json is missing"):
        beton.verify(tmp_path / "x.beton")
    assert "missing" in beton.list_betons(tmp_path)[0]["problem"]


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda side: side.symlink_to(side), lambda side: side.write_bytes(b"\xff")]
)
def test_a_description_that_cannot_be_read_is_one_clear_line(make, tmp_path):
    (tmp_path / "x.beton").write_bytes(b"")
    make(tmp_path / "x.beton.json")
    with pytest.raises(UsageError, match=r"x\.beton\.json: (cannot be read|not a description of an FFCV file)"):
        beton.load(tmp_path / "x.beton")
    assert "x.beton.json" in beton.list_betons(tmp_path)[0]["problem"]


def test_names_that_are_not_utf_8_are_written_and_read_back(tmp_path):
    root, out = tmp_path / "data", tmp_path / os.fsdecode(b"out\xff")
    for name in (b"caf\xe9", b"dog"):
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    (file,) = beton.write("imagefolder", root, out, ["train"])
    assert beton.load(file).classes == ("caf\udce9", "dog")
    assert beton.verify(file)["samples"] == 8  # every fifth is held out


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"mode": "jpeg"}, "mode='jpeg': expected raw, jpg, smart; did you mean 'jpg'"),
        ({"quality": 0}, "quality=0: expected 1 to 100"),
        ({"max_resolution": 0}, "max_resolution=0"),
        ({"dataset": "linear"}, "vectors"),
        ({"dataset": "mnis"}, "did you mean 'mnist'"),
    ],
)
def test_wrong_arguments_of_write_are_one_clear_line(tmp_path, given, problem):
    with pytest.raises(UsageError) as error:
        beton.write(**{"dataset": "digits", "out": tmp_path, **given})
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_max_resolution_bounds_the_longer_side_and_jpg_is_smaller(written, tmp_path):
    (path,) = beton.write("imagefolder", written[0], tmp_path, ["train"], "jpg", 20, 50, skip_bad=True)
    from ffcv.reader import Reader

    metadata = Reader(str(path)).metadata["f0"]
    assert (metadata["width"] == 20).all() and (metadata["height"] == 15).all() and (metadata["mode"] == 0).all()


def test_a_failing_writer_process_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    from research.data.ffcv import writer

    def fail(self, i):
        raise OSError("No space left on device")

    monkeypatch.setattr(writer.Samples, "__getitem__", fail)
    with pytest.raises(UsageError, match="not written: a writing process ended with code 1"):
        beton.write("digits", out=tmp_path)
    assert not list(tmp_path.iterdir()) and not multiprocessing.active_children()


@pytest.fixture(scope="module")
def stream(written):
    """A loader of the written pictures."""
    given = {"image_size": 16, "crop": "none"}
    return make_loader(
        Config(dataset="imagefolder", data_root=str(written[1]), data_args=given, loader="ffcv", batch_size=2), "train"
    )


def test_a_failing_ffcv_pipeline_raises_its_own_exception_instead_of_hanging(stream, monkeypatch):
    def fail(**_):
        raise ZeroDivisionError("in a transform")

    monkeypatch.setattr(stream.pipeline, "code", ([(fail, [])], []))
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="in a transform") as error:
        list(stream)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert time.monotonic() - started < 30


def test_ffcv_leaves_the_threads_of_torch_alone(stream):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    list(stream)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_new_epoch_compiles_nothing(stream):
    list(stream)
    dispatchers = [
        d for code, _ in stream.pipeline.code[0] for d in code.__globals__.values() if hasattr(d, "signatures")
    ]
    compiled = [len(d.signatures) for d in dispatchers]
    assert compiled and all(n == 1 for n in compiled)
    for epoch in (1, 2):
        stream.set_epoch(epoch)
        list(stream)
    assert [len(d.signatures) for d in dispatchers] == compiled


def test_compressed_files_keep_colours_and_order(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (10, 3), dtype=np.uint8)
    for i, colour in enumerate(colours):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((20 + i, 30, 3), colour)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    beton.write("imagefolder", tmp_path, tmp_path, mode="jpg", quality=95)
    given = {"image_size": 8, "normalize": False}
    config = Config(dataset="imagefolder", data_root=str(tmp_path), data_args=given, batch_size=4, loader="ffcv")
    found = next(iter(make_loader(config, "train")))
    expected = next(iter(make_loader(dataclasses.replace(config, loader="memory"), "train")))
    assert torch.allclose(found[0], expected[0], atol=3 / 255) and torch.equal(found[1], expected[1])


def test_what_a_killed_writer_left_is_removed_by_the_next_call_and_nothing_else(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = {
        f".digits-train.beton.{beton.MACHINE}.{dead.pid}.part": False,
        f".digits-train.beton.{beton.MACHINE}.{os.getpid()}.part": True,  # being written
        f".digits-train.beton.elsewhere.{dead.pid}.part": True,  # on another machine
        ".mine.part": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    beton.write("digits", out=tmp_path, splits=["val"])
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_a_folder_is_no_ffcv_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"\.: is a folder; give a \.beton file in it"):
        beton.verify(".")


def test_files_are_written_here_and_not_among_the_pictures(written, here, capsys):
    assert main(["data", "write", "imagefolder", "--root", str(written[0]), "--skip-bad"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"imagefolder: writing to {here / 'data'}"
    assert said[1:] == [f"data/imagefolder-{split}.beton" for split in ("train", "val")]
    assert not list(written[0].glob("*.beton*"))
    assert beton.find("imagefolder", written[0], "val").path == Path("data/imagefolder-val.beton")
    assert {row["path"] for row in beton.list_betons(written[0])} == set(said[1:])


def test_what_was_written_of_other_pictures_is_not_taken_for_these(written, here):
    beton.write("imagefolder", written[0], skip_bad=True)
    assert beton.path_of("imagefolder", written[1].parent, "val") is None
    (here / "data" / "imagefolder-val.beton.json").write_text("[]")
    assert beton.path_of("imagefolder", written[0], "val") is None
