"""FFCV files (.beton): write them from any picture set, know which data set they hold, and re-read them completely."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from research.data.datasets import data_root, describe
from research.errors import UsageError

SUFFIX = ".beton"


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
    quality: int
    max_resolution: int | None
    bytes: int
    source: str  # checksum over the names and labels of the source
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
    """The FFCV file of a split in the data root or its folder of that name, None if there is none."""
    base, name = data_root(root), f"{dataset}-{split}{SUFFIX}"
    return next((p for p in (base / dataset / name, base / name) if p.is_file()), None)


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
    side = path.with_name(path.name + ".json")
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        told = json.loads(side.read_text())
        lists = {name: tuple(told[name]) for name in ("classes", "skipped")}
        found = Beton(**{**told, **lists, "path": path})
    except FileNotFoundError:
        raise UsageError(
            f"{path}: its description {side.name} is missing; write it with `research data write`"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{side}: not a description of an FFCV file ({error}); write it again") from error
    if path.stat().st_size != found.bytes:
        raise UsageError(
            f"{path}: truncated or changed: {path.stat().st_size:,} of {found.bytes:,} bytes; write it again"
        )
    return found


def _save(found: Beton) -> None:
    from research.files import write_atomic

    told = {key: value for key, value in asdict(found).items() if key != "path"}
    write_atomic(found.path.with_name(found.path.name + ".json"), json.dumps(told, indent=1))
