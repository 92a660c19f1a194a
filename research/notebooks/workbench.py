"""The notebooks and studies that come with the package, and folders of one's own to work with them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from research.errors import UsageError
from research.files import write_new
from research.log.logbook import HEADER

SHIPPED = (Path(__file__).parents[1] / "shipped" / "notebooks").resolve()
"""The ``notebooks`` of the repository, to which this is a link there; in a wheel, files of the package."""
COPIED = (".ipynb", ".yaml")  # the README leads into the repository


class Workbench(NamedTuple):
    """What became of each file, relative to the folder."""

    made: list[Path]
    kept: list[Path]  # was there with another content, and is as it was


def make_workbench(folder: Path) -> Workbench:
    """Put the shipped notebooks and studies, a log and a place for runs into ``folder``; no file is overwritten.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    files = {Path("notebooks", name): content for name, content in _shipped().items()} | {
        Path("research-log.md"): HEADER
    }
    made, kept = [], []
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / name
            if not path.exists():
                write_new(path.with_suffix(""), {path.suffix: content})
                made.append(name)
            elif path.suffix in COPIED and path.read_bytes() != content:
                kept.append(name)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); name another folder") from None
    return Workbench(made, kept)


def _shipped() -> dict[Path, bytes]:
    """What is copied, by its place below ``notebooks``; copies that JupyterLab hides are not."""
    names = (path.relative_to(SHIPPED) for path in sorted(SHIPPED.rglob("*")) if path.suffix in COPIED)
    return {name: (SHIPPED / name).read_bytes() for name in names if not any(p.startswith(".") for p in name.parts)}
