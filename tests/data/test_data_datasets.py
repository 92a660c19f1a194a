"""Data sets: found in every accepted layout, refused with one clear line in any other."""

import gzip
import hashlib
import io
import multiprocessing
import os
import pickle
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from research.config import Config
from research.data import arrays, folders, synthetic
from research.data import choice as loaders
from research.data.choice import check
from research.data.datasets import DATASETS, check_dataset
from research.data.draws import held_out
from research.data.images import UnreadableImage
from research.data.layouts import cifar, layout
from research.errors import UsageError


@pytest.fixture
def small_mnist():
    """Images and labels of a tiny MNIST: 7 training and 5 test samples."""
    random = np.random.default_rng(0)
    return {
        p: (random.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n) % 10)
        for p, n in (("train", 7), ("t10k", 5))
    }


def write_idx(folder, content, opener=open, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in content.items():
        for name, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
            header = (0x800 + array.ndim).to_bytes(4, "big") + b"".join(s.to_bytes(4, "big") for s in array.shape)
            with opener(folder / f"{prefix}-{name}-ubyte{suffix}", "wb") as file:
                file.write(header + array.tobytes())


def cifar_files(folder, count=4):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in (*cifar.PICKLES10["train"], *cifar.PICKLES10["test"]):
        data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [i % 10 for i in range(count)]}))
    return data


@pytest.mark.parametrize(
    "place, opener, suffix", [("", open, ""), ("MNIST/raw", gzip.open, ".gz"), ("mnist", open, "")]
)
def test_mnist_is_read_from_idx_files_plain_or_compressed(tmp_path, small_mnist, place, opener, suffix):
    write_idx(tmp_path / place, small_mnist, opener, suffix)
    for split, prefix in (("train", "train"), ("val", "t10k")):
        images, labels = arrays.read("mnist", tmp_path, split)
        assert np.array_equal(images[..., 0], small_mnist[prefix][0])
        assert np.array_equal(labels, small_mnist[prefix][1])


@pytest.mark.parametrize(
    "keys", [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_mnist_is_read_from_npz_of_both_conventions(tmp_path, small_mnist, keys):
    values = (*small_mnist["train"], *small_mnist["t10k"])
    np.savez(tmp_path / "mnist.npz", **dict(zip(keys, values, strict=True)))
    assert np.array_equal(arrays.read("mnist", tmp_path, "val")[0][..., 0], small_mnist["t10k"][0])


def test_cifar_pickles_and_their_archive_give_the_same_pixels(tmp_path):
    data = cifar_files(tmp_path / "cifar-10-batches-py")
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    for split, count in (("train", 20), ("val", 4)):
        images, labels = arrays.read("cifar10", tmp_path, split)
        again, _ = arrays.read("cifar10", tmp_path / "tar", split)
        assert len(images) == len(labels) == count
        assert np.array_equal(images, again)
    assert np.array_equal(images[1, :, :, 2].reshape(-1), data[1, 2048:])


def cifar_binary(folder, labels, count=4):
    """Binary files of CIFAR with ``labels`` bytes of labels an image; the images of the last one, (count, 3072)."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    files = cifar.PICKLES10 if labels == 1 else cifar.PICKLES100
    for name in (*files["train"], *files["test"]):
        data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = np.arange(count, dtype=np.uint8)[:, None]
        (folder / f"{name}.bin").write_bytes(np.hstack([*[fine + 7] * (labels - 1), fine, data]).tobytes())
    return data


@pytest.mark.parametrize(
    ("name", "folder", "archive", "labels"),
    [
        ("cifar10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz", 1),
        ("cifar100", "cifar-100-binary", "cifar-100-binary.tar.gz", 2),
    ],
)
def test_binary_cifar_is_read_as_a_folder_and_as_its_archive(tmp_path, name, folder, archive, labels):
    data = cifar_binary(tmp_path / folder, labels)
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / archive, "w:gz") as tar:
        tar.add(tmp_path / folder, folder)
    for root in (tmp_path, tmp_path / "tar"):
        images, fine = arrays.read(name, root, "val")
        assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(-1, 3072), data) and fine.tolist() == [0, 1, 2, 3]
        assert arrays.count(name, root, "train") == (20 if labels == 1 else 4)
    file = tmp_path / folder / ("test_batch.bin" if labels == 1 else "test.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UsageError, match="bytes are not whole records of 307"):
        arrays.read(name, tmp_path, "val")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_the_arrays_of_keras(tmp_path, name):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.arange(6, dtype=np.uint8)[:, None]
    np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    found, numbers = arrays.read(name, tmp_path, "train")
    assert np.array_equal(found, images) and numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays.count(name, tmp_path, "val") == 2


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    cifar_files(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match="system does not belong in a CIFAR file"):
        arrays.read("cifar10", tmp_path, "val")


OBJECTS = (  # an object array of 8 chosen bytes, as the globals of CIFAR's own pickles could make it
    b"\x80\x02}X\x04\x00\x00\x00datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89U\x08AAAAAAAAtbs."
)


def test_a_pickle_that_would_make_pointers_is_refused(tmp_path):
    cifar_files(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(OBJECTS)
    with pytest.raises(UsageError, match="an array of 'O8' does not belong in a CIFAR file"):
        arrays.read("cifar10", tmp_path, "val")


def test_labels_of_a_pickle_are_whole_numbers(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    data = cifar_files(folder)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": data[:4], "labels": [1, 2, "3", 4]}, protocol=2))
    with pytest.raises(UsageError, match="labels that are not whole numbers"):
        arrays.read("cifar10", tmp_path, "val")


@pytest.mark.parametrize("kind", ["idx", "tar", "npz"])
def test_a_compressed_file_that_inflates_without_end_is_refused_in_little_memory(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(layout, "LARGEST_FILE", 1_000_000)
    monkeypatch.setattr(layout, "LARGEST_ARCHIVE", 2_000_000)
    zeros, name = bytes(8_000_000), "cifar10" if kind == "tar" else "mnist"
    if kind == "idx":
        for file in arrays.IDX:
            (tmp_path / f"{file}.gz").write_bytes(gzip.compress(zeros))
    elif kind == "npz":
        np.savez_compressed(tmp_path / "mnist.npz", train_images=np.zeros((10_000, 28, 28), np.uint8))
    else:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
            member.size = len(zeros)
            tar.addfile(member, io.BytesIO(zeros))
    tracemalloc.start()
    with pytest.raises(UsageError, match="bytes"):
        arrays.read(name, tmp_path, "val")
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_truncated_files_are_named(tmp_path, small_mnist):
    write_idx(tmp_path, small_mnist)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="t10k-images-idx3-ubyte is truncated: 3,919 of 3,920 bytes"):
        check(Config(dataset="mnist", data_root=str(tmp_path), batch_size=2))


def test_labels_beyond_the_classes_are_refused(tmp_path, small_mnist):
    small_mnist["train"][1][0] = 11
    write_idx(tmp_path, small_mnist)
    with pytest.raises(UsageError, match=r"labels up to 11; expected 0\.\.9"):
        arrays.read("mnist", tmp_path, "train")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "imagenet", "imagefolder"])
def test_missing_data_says_what_would_fix_it(tmp_path, name):
    config = Config(dataset=name, data_root=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=f"{name}: no folder '.*nowhere'; give data_root=FOLDER"):
        check(config)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet"])
def test_a_wrong_layout_says_what_was_found_and_what_was_expected(tmp_path, name):
    (tmp_path / "holiday.txt").write_text("x")
    with pytest.raises(UsageError, match="found holiday.txt.*expected"):
        check(Config(dataset=name, data_root=str(tmp_path)))


def test_the_data_root_falls_back_to_the_environment(tmp_path, small_mnist, monkeypatch):
    write_idx(tmp_path / "mnist", small_mnist)
    monkeypatch.setenv("RESEARCH_DATA", str(tmp_path))
    loaders._images.cache_clear()
    assert check(Config(dataset="mnist", batch_size=2)).train == 7


def test_digits_are_split_evenly_over_the_classes_and_the_parts_are_disjoint():
    _, labels = synthetic.digits()
    held = held_out(labels)
    for digit in range(10):
        of_digit = labels == digit
        assert abs(held[of_digit].sum() - of_digit.sum() / 5) <= 1
    info = check(Config())
    assert (info.train, info.val, info.shape, info.classes) == (1438, 359, (1, 8, 8), 10)


# sha256 of the label strings written by the reference implementation of NN-Mass
PUBLISHED_LABELS = {
    (12000, 1): "ce613f78960c478fccb8bf1e5d80aea001fe4fcacecd3995bcff29f682ffb04a",
    (12000, 2): "c7655d055bd7659c96cb12448fc3e6d6d47798cdcec03367a0063e91efd1eb1e",
    (1200, 10): "aa20902a521442788764f1c7794184742b5111ea9f299a4d1a7d60a253e58fee",
}


@pytest.mark.parametrize("count, num_seg", PUBLISHED_LABELS)
def test_segment_labels_equal_the_published_ones(count, num_seg):
    text = "".join(map(str, synthetic.labels(count, num_seg)))
    assert hashlib.sha256(text.encode()).hexdigest() == PUBLISHED_LABELS[count, num_seg]


@pytest.mark.parametrize("kind", ["linear", "circle"])
@pytest.mark.parametrize("split, per_bin", [("train", 100), ("val", 10)])
def test_generated_points_lie_in_their_bins(kind, split, per_bin):
    points = synthetic.points(kind, split)
    place = points[:, 0] if kind == "linear" else np.hypot(*points.T)
    assert points.shape == (120 * per_bin, 2)
    assert np.array_equal(np.floor(place * 1.2), np.arange(120).repeat(per_bin))
    assert not set(map(tuple, synthetic.points(kind, "train"))) & set(map(tuple, synthetic.points(kind, "val")))


def test_generated_sets_are_written_in_the_published_format(tmp_path):
    synthetic.write_csv(tmp_path)
    assert np.array_equal(np.loadtxt(tmp_path / "test_circle.csv", delimiter=","), synthetic.points("circle", "val"))
    assert (tmp_path / "train_linear.csv").stat().st_size == 12000 * len(
        "1.234567890123456789e+01,1.234567890123456789e+01\n"
    )


def test_every_data_set_accepts_its_own_defaults():
    for name in DATASETS:
        assert check_dataset(name, {}) == []


@pytest.mark.parametrize(
    "name, given, problem",
    [
        ("cifar", {}, "did you mean 'cifar1"),
        ("cifar10", {"paddin": 4}, "did you mean 'data_args.padding'"),
        ("cifar10", {"padding": -1}, "must be >= 0"),
        ("cifar10", {"crop": "padd"}, "did you mean 'pad'"),
        ("cifar10", {"image_size": 64}, "image_size must be 32"),
        ("imagenet", {"crop": "pad"}, "use crop=resized"),
        ("imagenet", {"image_size": 0}, "give the side"),
        ("imagenet", {"eval_resize": 200}, "must be at least image_size=224"),
        ("imagenet", {"scale": [0.5, 0.1]}, "smallest <= largest"),
        ("linear", {"flip": True}, "num_seg"),
        ("circle", {"num_seg": 0}, "must be >= 1"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_limit_or_nearest_name(name, given, problem):
    (line,) = check_dataset(name, given)
    assert problem in line and "\n" not in line


def test_unmatched_validation_classes_are_refused(tmp_path):
    for path in ("train/a/1.png", "val/b/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"")
    with pytest.raises(UsageError, match="val/ has classes that train/ lacks: b"):
        folders.find("imagefolder", tmp_path)


def test_packs_of_real_data_are_usable(shared_data):
    images, labels = arrays.read("mnist", shared_data, "train")
    assert labels[:5].tolist() == [5, 0, 4, 1, 9] and images.shape == (60000, 28, 28, 1)
    images, labels = arrays.read("cifar10", shared_data, "val")
    assert np.bincount(labels).tolist() == [1000] * 10 and images.shape == (10000, 32, 32, 3)
    zipped = folders.find("imagenet", shared_data / "imagenet-sample-160.zip")
    assert {split: len(pictures) for split, pictures in zipped.items()} == {"train": 800, "val": 200}
    assert len(zipped["train"].classes) == 1000
    assert io.BytesIO(zipped["train"].read(zipped["train"].files[0])).read(2) == b"\xff\xd8"


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet", "imagefolder"])
def test_a_file_where_a_folder_was_meant_is_told_so(tmp_path, name):
    (tmp_path / "thesis.pdf").write_bytes(b"%PDF")
    config = Config.load({"dataset": name, "data_root": str(tmp_path / "thesis.pdf"), "model": "resnet18"})
    with pytest.raises(UsageError, match=r"found a file\); expected"):
        check(config)


# -- folders and zips of pictures -----------------------------------------------------------------------------------


def pictures_at(home, *places):
    for place in places:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(place.encode())


def zipped(home):
    path = home.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(home.rglob("*")):
            archive.write(file, file.relative_to(home))
    return path


def found_in(place):
    """What is found in a folder or zip: classes, and the files of each split; or the refusal without its place."""
    try:
        found = folders.find("imagefolder", place)
    except UsageError as error:
        return str(error).replace(str(place), "")
    return {split: (own.classes, sorted(own.files), own.labels.tolist()) for split, own in found.items()}


CAT_AND_DOG = [f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(4)]
LAYOUTS = {
    "flat": CAT_AND_DOG,
    "deep": [*CAT_AND_DOG, "cat/left/9.jpg", "dog/left/9.jpg"],
    "splits": [f"{split}/{place}" for split in ("train", "val") for place in CAT_AND_DOG],
    "one deeper picture": ["train/cat/a/b/1.jpg", *(f"{s}/{p}" for s in ("train", "val") for p in CAT_AND_DOG)],
    "hidden": [*CAT_AND_DOG, "cat/.thumbs/1.jpg", ".Trash-1000/1.jpg", "cat/.1.jpg"],
    "wrapped": [f"data/{place}" for place in CAT_AND_DOG],
    "wrapped splits": [f"data/{split}/{place}" for split in ("train", "val") for place in CAT_AND_DOG],
    "foreign files": [*CAT_AND_DOG, "LICENSE", "cat/notes.txt", "docs/readme.txt"],
    "no val": [f"train/{place}" for place in CAT_AND_DOG],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_and_its_zip_are_the_same_data_set(tmp_path, layout):
    home = tmp_path / "home"
    pictures_at(home, *LAYOUTS[layout])
    found = found_in(home)
    assert found == found_in(zipped(home))
    if layout == "no val":
        assert "has train/ but no val/" in found
        return
    files = [file for _, files, _ in found.values() for file in files]
    expected = [p for p in LAYOUTS[layout] if p.endswith(".jpg") and "/." not in p and not p.startswith(".")]
    assert found["train"][0] == ("cat", "dog") and sorted(files) == sorted(expected)
    if "split" in layout or "deeper" in layout:
        assert all("val/" in file for file in found["val"][1]) and all("train/" in file for file in found["train"][1])


def test_one_split_given_as_the_root_is_told_apart(tmp_path):
    pictures_at(tmp_path, *LAYOUTS["splits"])
    with pytest.raises(UsageError, match=f"one split of {tmp_path}; give data_root={tmp_path}"):
        folders.find("imagefolder", tmp_path / "train")
    lone = tmp_path / "lone" / "train"
    pictures_at(lone, *CAT_AND_DOG)
    assert folders.find("imagefolder", lone)["train"].read("cat/0.jpg") == b"cat/0.jpg"


def test_links_inside_a_class_are_followed_and_circles_end(tmp_path):
    pictures_at(tmp_path / "home", *CAT_AND_DOG)
    pictures_at(tmp_path / "elsewhere", "9.jpg")
    (tmp_path / "home" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "home" / "cat" / "loop").symlink_to(tmp_path / "home")
    (tmp_path / "home" / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = folders.find("imagefolder", tmp_path / "home")
    files = {file for own in found.values() for file in own.files}
    assert files == {*CAT_AND_DOG, "cat/more/9.jpg", "dog/gone.jpg"}  # the broken link is told when it is read
    owner = next(own for own in found.values() if "dog/gone.jpg" in own.files)
    with pytest.raises(UnreadableImage, match="dog/gone.jpg"):
        owner.decoded(owner.files.index("dog/gone.jpg"))


@pytest.mark.parametrize("split", ["", "train/", "val/"])
def test_an_empty_class_is_refused_instead_of_shifting_labels(tmp_path, split):
    home = tmp_path / "home"
    pictures_at(home, *(LAYOUTS["splits"] if split else CAT_AND_DOG))
    (home / f"{split}bird").mkdir()
    for place in (home, zipped(home)):
        with pytest.raises(UsageError, match=r"the folder of class bird \(1 in all\) is empty; fill or remove it"):
            folders.find("imagefolder", place)


def test_a_zip_is_read_by_several_forked_processes_at_once(tmp_path):
    rng = np.random.default_rng(0)
    contents = {f"{'ab'[i % 2]}/{i}.jpg": rng.bytes(200_000) for i in range(40)}
    for place, content in contents.items():
        (tmp_path / "home" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / place).write_bytes(content)
    found = folders.find("imagefolder", zipped(tmp_path / "home"))["train"]
    found.read(found.files[0])  # opened before the processes part

    def all_right() -> None:
        for _ in range(5):
            assert all(found.read(file) == contents[file] for file in found.files)

    fork = multiprocessing.get_context("fork")
    readers = [fork.Process(target=all_right) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0] * 4


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (lambda x: (x / 255).astype("f4"), lambda y: y, "images of float32; expected uint8"),
        (lambda x: x.astype("u2") * 257, lambda y: y, "images of uint16; expected uint8"),
        (lambda x: x, lambda y: y + 0.5, r"labels \(7,\) of float64; expected \(N,\) whole numbers"),
        (lambda x: x, lambda y: np.eye(10)[y], r"labels \(7, 10\) of float64"),
        (lambda x: x, lambda y: y - 1, "labels up to -1; expected 0..9"),
        (lambda x: x[:5], lambda y: y, r"\(5, 28, 28, 1\) images and 7 labels"),
    ],
)
def test_arrays_that_are_not_bytes_and_class_numbers_are_refused_before_a_run(
    tmp_path, small_mnist, images, labels, told
):
    x, y = small_mnist["train"]
    np.savez(tmp_path / "mnist.npz", **{f"x_{s}": images(x) for s in ("train", "test")}, y_train=labels(y), y_test=y)
    with pytest.raises(UsageError, match=told):
        check(Config(dataset="mnist", data_root=str(tmp_path), batch_size=2))


@pytest.mark.parametrize("archived", [False, True])
def test_samples_of_pickles_are_counted_without_keeping_their_images(tmp_path, archived):
    cifar_files(tmp_path / "cifar-10-batches-py", count=300)
    if archived:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
        (tmp_path / "cifar-10-batches-py").rename(tmp_path / "elsewhere")
    tracemalloc.start()
    assert arrays.count("cifar10", tmp_path, "train") == 1500
    assert tracemalloc.get_traced_memory()[1] < 3.5 * 300 * 3072  # of five files, one at a time
    tracemalloc.stop()


HEADERS = {b"PK\x03\x04": 6, b"PK\x01\x02": 8}  # of a member, of the same in the directory: where its flags begin
SPOILT = {"encrypted": (0, 1), "deflated": (2, 8), "of no method": (2, 97)}  # byte behind there, and its value


def write_zip(path, folder, spoilt):
    """Zip the pictures in ``folder`` and spoil the headers of the first."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    content, (byte, value) = bytearray(path.read_bytes()), SPOILT[spoilt]
    for header, flags in HEADERS.items():
        content[content.index(header) + flags + byte] = value
    path.write_bytes(content)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_one_odd_file_of_a_zip_is_named_and_spoils_no_other(tmp_path, spoilt):
    draw_classes(tmp_path / "a")
    write_zip(tmp_path / "a.zip", tmp_path / "a", spoilt)
    found = folders.find("imagefolder", tmp_path / "a.zip")
    sizes, reasons = zip(*(pictures.scan("checking") for pictures in found.values()), strict=True)
    assert sum((size == 0).sum() for size in sizes) == 1 and sum(len(size) for size in sizes) == 12
    (reason,) = (line for lines in reasons for line in lines.values())
    assert reason.startswith("cat/0.png: ")


def test_a_pipe_a_circle_and_a_monster_among_the_pictures_are_named(tmp_path, monkeypatch):
    draw_classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "circle.png").symlink_to("circle.png")
    with (tmp_path / "cat" / "monster.png").open("wb") as file:
        file.truncate(10**12)
    pictures = folders.find("imagefolder", tmp_path)
    reasons = sorted(reason for split in pictures.values() for reason in split.scan("checking")[1].values())
    assert [reason.partition(": ")[0] for reason in reasons] == ["cat/circle.png", "cat/monster.png", "cat/pipe.png"]
    assert "1,000,000,000,000 bytes" in reasons[1]


def draw_classes(home):
    for name in ("cat", "dog"):
        (home / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(home / name / f"{i}.png")
