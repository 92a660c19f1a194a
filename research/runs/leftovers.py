"""Files that killed processes left behind, recognised by names that only this project gives.

A leftover is older than ``PATIENCE`` and belongs to no living process: a run that trains now, here or on another
machine with the same disk, has written to its files within that time.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from research.config import Config
from research.data.ffcv.beton import leftovers as beton_leftovers
from research.errors import UsageError
from research.runs.paths import NAMES, RunPaths
from research.runs.run import Run
from research.runs.status import held, recorded

PATIENCE = 3600.0  # seconds without a change
PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part")  # see research.files.replaced
OLD_PART = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")  # as it was named before; beside the file itself only
NOTEBOOK = re.compile(r"\.[\w.+-]+-(?P<process>\d+)\.ipynb")  # see research.notebooks.execute
DATED = re.compile(r"\d{4}-\d\d-\d\d-.+\.(png|pdf|svg)")  # a figure of the log


class Leftover(NamedTuple):
    """A file or folder that is no longer needed, what it is, and its size in bytes."""

    path: Path
    what: str
    size: int


def find_leftovers(folder: Path) -> list[Leftover]:
    """The leftovers in ``folder`` and below, in the order of paths. Links are not followed.

    Raises:
        UsageError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"no folder {folder}")
    found: dict[Path, Leftover] = {}
    for home, folders, names in os.walk(folder):
        here = Path(home)
        if what := _stale_folder(here):
            folders.clear()
            found[here] = Leftover(here, what, sum(path.stat().st_size for path in here.rglob("*") if path.is_file()))
            continue
        for path, what in _stale_files(here, names):
            found[path] = Leftover(path, what, path.lstat().st_size)
    return [found[path] for path in sorted(found)]


def remove(leftover: Leftover) -> None:
    """Remove leftovers, unless they have been written to since they were found."""
    if not _is_old(leftover.path):
        return
    if leftover.path.is_dir():
        shutil.rmtree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)


def _stale_folder(folder: Path) -> str:
    """Why a whole folder is a leftover; empty if it is not."""
    paths = RunPaths(folder.parent)
    if folder == paths.session and _is_old(folder) and not held(folder.parent):
        return "what the processes of a run that ended told each other"
    if os.path.isfile(RunPaths(folder).config) and not folder.is_symlink() and not held(folder):
        failed = recorded(folder)["status"] in ("failed", "interrupted", "running")
        if failed and Run(folder, Config()).is_unbegun() and _is_old(folder):
            return "a run that never began"
    return ""


def _stale_files(folder: Path, names: list[str]) -> Iterator[tuple[Path, str]]:
    betons = set(beton_leftovers(folder))
    for name in names:
        path = folder / name
        if path.is_symlink() or not _is_old(path):
            continue
        if path in betons:
            yield path, "an FFCV file that was not finished"
        elif PART.fullmatch(name) and ".beton." not in name:
            yield path, "a file that was not finished"
        elif (match := OLD_PART.fullmatch(name)) and match["name"] in names and _is_of_a_run(folder / match["name"]):
            yield path, "a file that was not finished"
        elif (match := NOTEBOOK.fullmatch(name)) and not psutil.pid_exists(int(match["process"])):
            yield path, "a notebook whose process is gone"
        elif path.stat().st_size == 0 and _is_reserved(path):
            yield path, "an empty figure or notebook"


def _is_of_a_run(path: Path) -> bool:
    """Whether ``path`` is one of the files that a run's folder has."""
    return path.name in NAMES or path.parent.name == RunPaths("").checkpoints.name


def _is_reserved(path: Path) -> bool:
    """Whether ``path`` is a place of figures or notebooks: their files are first created empty to reserve a name."""
    home = path.parent
    if path.suffix == ".ipynb":
        return home.name == "analysis" or os.path.isfile(RunPaths(home).config)
    if home.name == "figures":
        return os.path.isfile(RunPaths(home.parent).config)
    return home.name == "log" and bool(DATED.fullmatch(path.name))


def _is_old(path: Path) -> bool:
    """Whether a file, or every file in a folder, is old; locks do not count, because looking touches them."""
    files = path.rglob("*") if path.is_dir() else [path]
    ages = [time.time() - file.lstat().st_mtime for file in files if not (file.is_dir() or file.name.endswith(".lock"))]
    return all(age > PATIENCE for age in ages)
