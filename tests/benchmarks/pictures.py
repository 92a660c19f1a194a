"""Pictures of ImageNet's size, cropped, resized and coloured, against the decoders and loaders that people use.

    python tests/benchmarks/pictures.py

Pictures of 500 x 375 pixels are made and stored as JPEG files; all loaders deliver batches of 64 at 224 pixels,
float32, normalised, in one process and thread (FFCV in its own). A measurement is an epoch of 128 pictures.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from pairs import Row, Ways, main
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2

from research.config import Config
from research.data.choice import make_loader
from research.data.datasets import IMAGENET
from research.data.ffcv import beton

HEIGHT, WIDTH, BATCH = 375, 500, 64
CROP = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
FLOAT = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET["mean"], IMAGENET["std"])]
ERASING = v2.RandomErasing(p=1, scale=(0.0625, 0.0625), ratio=(1, 1))  # a square of 56 pixels
PIPELINES = {  # split and arguments of ours, and torchvision's transforms
    "crop, flip": ("train", {}, [*CROP, v2.ToImage(), *FLOAT]),
    "crop, flip, jitter": ("train", {"jitter": 0.4}, [*CROP, v2.ColorJitter(0.4, 0.4, 0.4), v2.ToImage(), *FLOAT]),
    "crop, flip, cutout": ("train", {"cutout": 56}, [*CROP, v2.ToImage(), *FLOAT, ERASING]),
    "resize, centre crop": ("val", {}, [v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), *FLOAT]),
}


def make_pictures(folder: Path, images: int) -> None:
    """``images`` JPEG files a split, of one class: smooth shapes with the grain that makes photographs hard to pack."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split / "only").mkdir(parents=True)
        for i in range(images):
            shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((WIDTH, HEIGHT))
            grain = random.normal(0, 14, (HEIGHT, WIDTH, 3))
            pixels = (np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / "only" / f"{i}.jpg", quality=90)


@cache
def files(images: int) -> tempfile.TemporaryDirectory:
    """A folder with pictures and the same as .beton, raw and jpg, there as long as this process."""
    folder = tempfile.TemporaryDirectory()
    place = Path(folder.name)
    make_pictures(place / "pictures", images)
    for mode in ("raw", "jpg"):
        beton.write("imagefolder", str(place / "pictures"), str(place / mode), mode=mode)
    return folder


def data_loader(folder: Path, pipeline: str, read: Callable | None = None) -> Iterable:
    """torchvision's transforms in torch's DataLoader, of what ``read`` makes of a path: PIL's picture if not given."""
    split, _, transforms = PIPELINES[pipeline]
    given = {"loader": read} if read else {}
    pictures = ImageFolder(str(folder / "pictures" / split), v2.Compose(transforms), **given)
    return DataLoader(pictures, BATCH, shuffle=split == "train")


def torchvision_decoder(folder: Path, pipeline: str) -> Iterable:
    return data_loader(folder, pipeline, lambda path: decode_jpeg(read_file(path)))


def simplejpeg_decoder(folder: Path, pipeline: str) -> Iterable:
    from simplejpeg import decode_jpeg  # may be missing, as webdataset

    return data_loader(
        folder, pipeline, lambda path: torch.from_numpy(decode_jpeg(Path(path).read_bytes())).permute(2, 0, 1)
    )


def webdataset(folder: Path, pipeline: str) -> Iterable:
    import webdataset as wds

    split, _, transforms = PIPELINES[pipeline]
    shard = folder / f"{split}.tar"
    if not shard.exists():
        with wds.TarWriter(str(shard)) as tar:
            for path in sorted((folder / "pictures" / split / "only").iterdir()):
                tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": 0})
    pictures = wds.WebDataset(str(shard), shardshuffle=False, empty_check=False).shuffle(100).decode("pil")
    return DataLoader(pictures.to_tuple("jpg", "cls").map_tuple(v2.Compose(transforms), int), BATCH)


@cache  # compiles for seconds
def ffcv(folder: Path, pipeline: str, mode: str) -> Iterable:
    """FFCV with its own transforms, as its documentation has them for ImageNet."""
    assert pipeline == "crop, flip"
    mean, std = (255 * np.array(IMAGENET[name]) for name in ("mean", "std"))
    image = [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip()]
    image += [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()]
    pipelines = {"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]}
    path = beton.path_of("imagefolder", folder / mode, "train")
    return Loader(str(path), BATCH, 1, True, OrderOption.RANDOM, pipelines=pipelines)


def epoch(loader: Iterable) -> None:
    deque(loader, maxlen=0)


def against(rival: Callable[..., Iterable], ours: str, pipeline: str, small: bool) -> Ways:
    """Ours, of files called ``ours``, against ``rival(folder, pipeline)``."""
    folder = Path(files(BATCH if small else 2 * BATCH).name)
    split, arguments, _ = PIPELINES[pipeline]
    place, loader = ("pictures", "memory") if ours == "memory" else (ours, "ffcv")
    given = {"batch_size": BATCH, "workers": 1, "data_args": {"image_size": 224} | arguments}
    config = Config(dataset="imagefolder", data_root=str(folder / place), loader=loader, **given)
    return Ways(partial(epoch, make_loader(config, split)), partial(epoch, rival(folder, pipeline)))


NAMES = {"memory": "from memory", "raw": "FFCV raw", "jpg": "FFCV jpg"}
LEAST = {"memory": 4.5, "raw": 4.5, "jpg": 1.8}
RIVALS = (
    ("memory", "torchvision's decoder, DataLoader", torchvision_decoder, ""),
    ("jpg", "torchvision's decoder, DataLoader", torchvision_decoder, ""),
    ("jpg", "simplejpeg, DataLoader", simplejpeg_decoder, "simplejpeg"),
    ("jpg", "webdataset", webdataset, "webdataset"),
    ("raw", "FFCV's own", partial(ffcv, mode="raw"), ""),
    ("jpg", "FFCV's own", partial(ffcv, mode="jpg"), ""),
)
ROWS = [
    Row(f"224 px, {pipeline}, {NAMES[ours]}", "PIL, torchvision v2, DataLoader",
        f">= {LEAST[ours] if pipeline == 'crop, flip' else min(3, LEAST[ours])}",
        partial(against, data_loader, ours, pipeline))
    for pipeline in PIPELINES
    for ours in LEAST
]  # fmt: skip
ROWS += [
    Row(f"224 px, crop, flip, {NAMES[ours]}", name, ">= 1", partial(against, rival, ours, "crop, flip"), needs)
    for ours, name, rival, needs in RIVALS
]

if __name__ == "__main__":
    main(ROWS, __doc__)
