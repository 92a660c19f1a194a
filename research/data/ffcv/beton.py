"""FFCV files (.beton): write them from any picture set, know which data set they hold, and re-read them completely."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from research.data import arrays, folders
from research.data.datasets import data_root, describe
from research.errors import UsageError, closest
from research.files import read_json, write_atomic
from research.parameters.signatures import check_arguments

SUFFIX = ".beton"
MODES = ("raw", "jpg", "smart")
HERE = Path("data")  # where files are written unless a folder is named: not among pictures that may be anybody's
MACHINE = platform.node().replace(".", "_")  # in the names of unfinished files: other machines may share the folder


@dataclass(frozen=True)
class Beton:
    """What is known of an FFCV file; kept next to it as ``<file>.json``, because the file itself cannot say."""

    path: Path
    dataset: str
    split: str
    samples: int
    classes: tuple[str, ...]
    channels: int
    mode: str
    quality: int | None
    max_resolution: int | None
    bytes: int
    checksum: str  # of the file
    source: str  # checksum over the names and labels of the source
    root: str = ""  # the data root that it was written from
    skipped: tuple[str, ...] = ()


def require_ffcv() -> None:
    """UsageError in one sentence when FFCV is not installed."""
    missing = [name for name in ("ffcv", "numba") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"loader='ffcv': {' and '.join(missing)} is not installed; `pip install ffcv` (it needs OpenCV and "
            f"libturbojpeg, see the README), or set loader=memory"
        )


def path_of(dataset: str, root: str | Path, split: str) -> Path | None:
    """The FFCV file of a split: in the data root, in its folder there, or here, if written from that root; or None."""
    base, name = data_root(root), f"{dataset}-{split}{SUFFIX}"
    if found := next((p for p in (base / dataset / name, base / name) if p.is_file()), None):
        return found
    own = HERE / name
    told = read_json(own.with_name(f"{name}.json"), None) if own.is_file() else None
    return own if isinstance(told, dict) and told.get("root") == str(base.resolve()) else None


def find(dataset: str, root: str | Path, split: str) -> Beton:
    """The description of a split's FFCV file; UsageError when it is missing, truncated or of another data set."""
    describe(dataset)
    path = path_of(dataset, root, split)
    if path is None:
        raise UsageError(
            f"{dataset}: no {dataset}-{split}{SUFFIX} in {data_root(root)}; run "
            f"`research data write {dataset} --root {data_root(root)}` once"
        )
    found = load(path)
    if (found.dataset, found.split) != (dataset, split):
        raise UsageError(f"{path}: holds {found.dataset} {found.split}, not {dataset} {split}; write it again")
    return found


def load(path: str | Path) -> Beton:
    """The description next to an FFCV file, checked against the file's size."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder; give a .beton file in it' if path.is_dir() else 'no such file'}")
    found = _described(path)
    if path.stat().st_size != found.bytes:
        raise UsageError(
            f"{path}: truncated or changed: {path.stat().st_size:,} of {found.bytes:,} bytes; write or adopt it again"
        )
    return found


def _described(path: Path) -> Beton:
    side = path.with_name(path.name + ".json")
    try:
        told = json.loads(side.read_bytes())
        values, problems = check_arguments("", Beton, {**told, "path": path})
    except FileNotFoundError:
        raise UsageError(f"{path}: its description {side.name} is missing; `research data adopt` makes one") from None
    except OSError as error:
        raise UsageError(f"{side}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{side}: not a description of an FFCV file ({error}); write it again") from None
    if problems:
        raise UsageError(f"{side}: not a description of an FFCV file ({problems[0]}); write it again")
    return Beton(**values)


def save(found: Beton) -> None:
    told = {key: value for key, value in asdict(found).items() if key != "path"}
    write_atomic(found.path.with_name(found.path.name + ".json"), json.dumps(told, indent=1))


def write(
    dataset: str,
    root: str | Path = "",
    out: str | Path | None = None,
    splits: Sequence[str] = ("train", "val"),
    mode: str = "raw",
    max_resolution: int | None = None,
    quality: int = 90,
    skip_bad: bool = False,
    download: bool = False,
) -> list[Path]:
    """Write the FFCV files of a data set, ``<out>/<dataset>-<split>.beton`` (default: ``data``); returns their paths.

    Training finds them in the data root, or, from this folder with the same root, in ``data``.

    ``mode``: "raw" keeps pixels, "jpg" compresses with ``quality``, "smart" compresses the large ones.
    ``max_resolution`` bounds the longer side. A file appears only when it is complete; none is overwritten.

    Raises:
        UsageError: a file exists, no space, or unreadable pictures - all of them, by name - unless ``skip_bad``.
    """
    if mode not in MODES:
        raise UsageError(f"mode={mode!r}: expected {', '.join(MODES)}{closest(mode, MODES)}")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality={quality}: expected 1 to 100")
    if max_resolution is not None and max_resolution < 1:
        raise UsageError(f"max_resolution={max_resolution}: expected at least 1 pixel")
    require_ffcv()
    folder = Path(out) if out else HERE
    paths = {split: folder / f"{dataset}-{split}{SUFFIX}" for split in splits}
    for path in paths.values():
        if path.exists():
            raise UsageError(f"{path}: exists; remove it first to write it again")
    sources = {split: _samples(dataset, root, split, download) for split in splits}
    bad = [reason for source in sources.values() for reason in source.skipped]
    if bad and not skip_bad:
        raise UsageError(_unreadable(dataset, bad))
    for part in leftovers(folder):
        part.unlink(missing_ok=True)
    _make_room(folder, sum(source.total for source in sources.values()) if mode == "raw" and not max_resolution else 0)
    print(f"{dataset}: writing to {folder.resolve()}", flush=True)
    for split, path in paths.items():
        _write_one(path, dataset, split, sources[split], mode, quality, max_resolution)
    return list(paths.values())


def verify(path: str | Path, dataset: str = "") -> dict:
    """Re-read an FFCV file completely; UsageError when it is damaged, or of another data set than ``dataset``."""
    found = load(path)
    if dataset and found.dataset != dataset:
        raise UsageError(f"{path}: holds {found.dataset}, not {dataset}")
    if (checksum := checksum_of(found.path)) != found.checksum:
        raise UsageError(f"{path}: damaged: checksum {checksum}, expected {found.checksum}; write it again")
    return summary(found) | {"classes": len(found.classes), "mode": found.mode, "skipped": len(found.skipped)}


def list_betons(root: str | Path = "") -> list[dict]:
    """The FFCV files below a data root, and here: name, split, samples, MB, path; ``problem`` where one is damaged."""
    rows = []
    found = (path for folder in (data_root(root), HERE) for path in folder.glob(f"**/*{SUFFIX}"))
    there = {path.resolve(): path for path in sorted(found, key=Path.is_symlink)}  # of an adopted file, its link
    for path in sorted(there.values()):
        try:
            rows.append(summary(load(path)))
        except UsageError as error:
            rows.append({"name": path.stem, "path": str(path), "problem": str(error)})
    return rows


def leftovers(folder: str | Path) -> list[Path]:
    """Unfinished files in ``folder`` whose writer, a process of this machine, is gone: what a kill left behind."""
    unfinished = {path: path.name.rsplit(".", 3) for path in Path(folder).glob(f".*{SUFFIX}.*.part")}
    return [
        path
        for path, (_, machine, process, _) in unfinished.items()
        if machine == MACHINE and process.isdigit() and not psutil.pid_exists(int(process))
    ]


@dataclass(frozen=True)
class _Source:
    """What is written: image(i) -> (H, W, C) uint8, labels (N,), class names, bytes of the largest and of all."""

    image: Callable[[int], np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    channels: int
    largest: int
    total: int
    checksum: str
    root: str  # where it was found
    skipped: tuple[str, ...] = ()


def _samples(dataset: str, root: str | Path, split: str, download: bool) -> _Source:
    described, place = describe(dataset), str(data_root(root).resolve())
    if described.kind == "vectors":
        raise UsageError(f"{dataset}: is a set of vectors, which needs no FFCV file; use loader=memory")
    if described.kind == "images":
        images, labels = arrays.read_split(dataset, root, split, download)
        names = tuple(str(i) for i in range(described.classes))
        source = blake2b(np.ascontiguousarray(images), digest_size=8)
        source.update(labels.tobytes())
        each = images[0].nbytes * 3 // described.shape[0]
        size = (described.shape[0], each, each * len(labels))
        return _Source(images.__getitem__, labels, names, *size, source.hexdigest(), place)
    pictures = folders.find(dataset, root)[split]
    sizes, reasons = pictures.scan(f"checking {split}")
    good = pictures.subset(sizes > 0)
    if not len(good):
        raise UsageError(_unreadable(dataset, list(reasons.values())))
    named = "\n".join(f"{label} {file}" for label, file in zip(good.labels, good.files, strict=True))
    source = blake2b(os.fsencode(named), digest_size=8).hexdigest()
    size = (3, int(sizes.max()), int(sizes.sum()))
    return _Source(good.decoded, good.labels, good.classes, *size, source, place, tuple(reasons.values()))


def _write_one(
    path: Path, dataset: str, split: str, source: _Source, mode: str, quality: int, limit: int | None
) -> None:
    from research.data.ffcv.writer import Samples, write_samples  # FFCV may be missing, and takes seconds

    part = path.with_name(f".{path.name}.{MACHINE}.{os.getpid()}.part")
    try:
        write_samples(part, Samples(source.image, source.labels, limit), mode, quality, source.largest)
        told = dict(dataset=dataset, split=split, samples=len(source.labels), classes=source.classes)
        told |= dict(channels=source.channels, mode=mode, quality=quality, max_resolution=limit)
        told |= dict(bytes=part.stat().st_size, checksum=checksum_of(part))
        told |= dict(source=source.checksum, root=source.root, skipped=source.skipped)
        save(Beton(path=path, **told))
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: not written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _make_room(folder: Path, needed: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give --out FOLDER") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: cannot be written; give --out FOLDER")
    if needed > (free := shutil.disk_usage(folder).free):
        raise UsageError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; use --mode jpg or "
            f"--max-resolution, or give another --out"
        )


def _unreadable(dataset: str, reasons: list[str]) -> str:
    lines = "".join(f"\n  {reason}" for reason in reasons)
    return f"{dataset}: {len(reasons)} unreadable picture(s); --skip-bad writes the others:{lines}"


def checksum_of(path: Path) -> str:
    total, digest = path.stat().st_size, blake2b(digest_size=16)
    with (
        path.open("rb") as file,
        tqdm(total=total, desc="reading back", unit="B", unit_scale=True, disable=None) as bar,
    ):
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def summary(found: Beton) -> dict:
    """What a user is told of an FFCV file: name, split, samples, MB, path."""
    megabytes = round(found.bytes / 1e6, 1)
    return dict(name=found.dataset, split=found.split, samples=found.samples, MB=megabytes, path=str(found.path))
