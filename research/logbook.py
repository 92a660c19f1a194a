"""Figure and text become a dated entry in research-log.md; what people wrote there stays byte for byte.

A writer locks a sidecar file, reads the log, and replaces it in one step, so that concurrent writers lose nothing and
a writer killed at any moment leaves the log whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from filelock import FileLock, Timeout

from research.errors import UsageError
from research.files import write_atomic, write_new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from research.frames import Runs

HEADER = "# Research log\n"
LOCK_SECONDS = 60.0


def append(
    title: str,
    text: str = "",
    figures: Iterable[Figure | tuple[str, Figure] | Path | str] = (),
    runs: Runs | Sequence[str] = (),
    path: Path | str = "research-log.md",
    folder: Path | str = "runs/log",
) -> Path:
    """Append an entry under ``## YYYY-MM-DD title`` and return the path of the log.

    The same date and title as the log's last entry continues that entry. Figures (drawn ones, optionally named, or
    image files) are stored in ``folder`` under names that are still free, and linked relative to the log. ``runs`` (a
    frame of :func:`research.load_runs`, or names) become a small table with the parameters that differ from defaults.

    Raises:
        UsageError: no title; log or folder cannot be written, before any figure is; a figure file is missing; the log
            stays locked by another process.
    """
    title = " ".join(title.split())
    if not title:
        raise UsageError("a log entry needs a title")
    path, folder, figures = Path(path).resolve(), Path(folder).resolve(), list(figures)
    _check_writable(path, folder if figures else None)
    images = [_image(figure, title) for figure in figures]
    table = _table(runs)
    today = date.today().isoformat()
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            links = [_link(_store(image, folder, today), image.name, path) for image in images]
            body = "\n\n".join(part for part in (text.strip("\n"), *links, table) if part)
            _append(path, f"## {today} {title}", body)
    except Timeout:
        raise UsageError(f"{path}: another process has held the log for {LOCK_SECONDS:g} s; try again") from None
    return path


def _append(path: Path, heading: str, body: str) -> None:
    """Put ``body`` at the end of the log, under ``heading`` unless the last entry already carries it."""
    old = path.read_bytes() if path.exists() else HEADER.encode()
    entry = body if _last_heading(old) == heading else f"{heading}\n\n{body}".rstrip("\n")
    if entry:
        gap = b"" if not old or old.endswith(b"\n\n") else b"\n" if old.endswith(b"\n") else b"\n\n"
        write_atomic(path, old + gap + entry.encode() + b"\n")


def _last_heading(log: bytes) -> str:
    """The last ``## `` line outside fenced code."""
    last, fence = "", ""
    for line in log.decode(errors="replace").splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        elif not fence and line.startswith("## "):
            last = line.rstrip()
    return last


def _check_writable(path: Path, folder: Path | None) -> None:
    if path.is_dir():
        raise UsageError(f"{path}: the log is a folder; name a file, such as {path / 'research-log.md'}")
    if path.exists() and not _writable(path):
        raise UsageError(f"{path}: the log is read-only; `chmod u+w` it or name another")
    for place in filter(None, (path.parent, folder)):
        nearest = next(p for p in (place, *place.parents) if p.exists())
        if not nearest.is_dir():
            raise UsageError(f"{nearest}: is a file, but a folder is needed there for the log or its figures")
        if not _writable(nearest):
            raise UsageError(f"{nearest}: the folder is read-only; `chmod u+w` it or name another")
    path.parent.mkdir(parents=True, exist_ok=True)


def _writable(path: Path) -> bool:
    """Whether permissions allow writing; a file that nobody may write is left alone even by root, who could."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


class _Image(NamedTuple):
    name: str
    files: dict[str, bytes]  # suffix -> content; the first one is linked


def _image(figure: Any, title: str) -> _Image:
    if isinstance(figure, (str, Path)):
        path = Path(figure)
        if not path.is_file():
            raise UsageError(f"{figure}: no such figure file")
        return _Image(path.stem, {path.suffix: path.read_bytes()})
    name, figure = figure if isinstance(figure, tuple) else (title, figure)
    from research.figures import render

    return _Image(name, render(figure))


def _store(image: _Image, folder: Path, today: str) -> Path:
    stem = write_new(folder / f"{today}-{_slug(image.name)}", image.files)
    return stem.with_name(stem.name + next(iter(image.files)))


def _link(image: Path, name: str, log: Path) -> str:
    target = Path(os.path.relpath(image, log.parent)).as_posix()
    return f"![{re.sub(r'[][]', '', name)}]({quote(target)})"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "figure"


def _table(runs: Runs | Sequence[str]) -> str:
    """A Markdown table of the runs; only names when that is all there is."""
    if len(runs) == 0:
        return ""
    if not hasattr(runs, "columns"):
        return "Runs: " + ", ".join(f"`{name}`" for name in runs)
    from research.frames import word

    lines = ["| run | changed parameters | status | best top-1 (%) |", "| --- | --- | --- | ---: |"]
    for run, changes in zip(runs.itertuples(), runs.changes(), strict=True):
        best = f"{run.best_top1:.2f}" if run.best_top1 == run.best_top1 else ""
        told = ", ".join(word(key, value) for key, value in changes.items())
        told = told.replace("|", r"\|").replace("\n", " ")
        lines.append(f"| `{run.name}` | {told or 'none'} | {run.status} | {best} |")
    return "\n".join(lines)
