"""Dated entries of text and figures in research-log.md; what people wrote there stays byte for byte.

A writer locks a sidecar file, reads the log, and replaces it in one step, so that concurrent writers lose nothing and
a writer killed at any moment leaves the log whole. Entries made from runs: :mod:`research.log.entries`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from research.errors import UsageError, nearest
from research.files import write_atomic, write_new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from research.frames import Runs

HEADER = b"# Research log\n"
LOCK_SECONDS = 60.0
FENCE = re.compile(rb" {0,3}(`{3,}(?![^\n]*`)|~{3,})")
BLOCK = re.compile(rb" {0,3}<(?:!--|(pre|script|style|textarea)\b)", re.I)
MARK = re.compile(rb"<!-- run:(\S+) (\S+) -->")

Place = Callable[[bytes], "tuple[int, str] | None"]  # log -> offset of the new text and how it opens; None: no text


def append(
    title: str,
    text: str = "",
    figures: Iterable[Figure | tuple[str, Figure] | Path | str] = (),
    runs: Runs | Sequence[str] = (),
    path: Path | str = "research-log.md",
    folder: Path | str = "runs/log",
    marks: Mapping[str, str] | None = None,
) -> Path:
    """Append an entry under ``## YYYY-MM-DD title`` and return the path of the log.

    The same date and title as the log's last entry continues that entry. Figures (drawn ones, optionally named, or
    image files) are stored in ``folder`` under names that are still free, and linked relative to the log. ``runs`` (a
    frame of :func:`research.load_runs`, or names) become a small table with the parameters that differ from defaults.

    ``marks`` (run -> its state) are kept in the entry as hidden comments and say what it is about. A log that has all
    of them is not changed; if it has one of these runs in another state, the text becomes an update of that entry.

    Raises:
        UsageError: no title, or nothing under it; log or folder cannot be written, before any figure is; a figure file
            is missing; the log stays locked by another process.
    """
    title = " ".join(title.split())
    if not title:
        raise UsageError("a log entry needs a title")
    heading = f"## {date.today().isoformat()} {title}"
    marks = marks or {}

    def place(log: bytes) -> tuple[int, str] | None:
        known = list(_marks(log))
        if marks and marks.items() <= {(name, state) for _, name, state in known}:
            return None
        earlier = [offset for offset, name, _ in known if name in marks]
        if earlier:
            return _end_of_entry(log, earlier[-1]), _update_opening()
        *_, last = "", *(found for _, found in _headings(log))
        return len(log), "" if last == heading else f"{heading}\n\n"

    hidden = "\n".join(f"<!-- run:{quote(name)} {state} -->" for name, state in marks.items())
    return _insert(place, title, text, figures, [_table(runs), hidden], path, folder)


def update(
    title: str,
    text: str,
    figures: Iterable[Figure | tuple[str, Figure] | Path | str] = (),
    path: Path | str = "research-log.md",
    folder: Path | str = "runs/log",
) -> Path:
    """Append ``text`` as an ``**update**:`` to the newest entry called ``title``; returns the path of the log.

    Raises:
        UsageError: the log has no such entry; says which it has. And what :func:`append` raises.
    """
    title = " ".join(title.split())

    def place(log: bytes) -> tuple[int, str]:
        entries = {heading[14:]: offset for offset, heading in _headings(log) if heading[3:13].count("-") == 2}
        if title not in entries:
            raise UsageError(f"{path}: no entry is called {title!r}{nearest(title, entries)}")
        return _end_of_entry(log, entries[title]), _update_opening()

    return _insert(place, title, text, figures, [], path, folder)


def has(marks: Mapping[str, str], path: Path | str = "research-log.md") -> bool:
    """Whether the log has all of these marks."""
    log = Path(path).read_bytes() if Path(path).is_file() else b""
    return marks.items() <= {(name, state) for _, name, state in _marks(log)}


def _insert(place: Place, title: str, text: str, figures: Iterable, more: Sequence[str], path, folder) -> Path:
    """Render and store figures, and insert text and links at ``place``, with the log locked."""
    path, folder, figures = Path(path).resolve(), Path(folder).resolve(), list(figures)
    if not (text.strip() or figures or any(more)):
        raise UsageError(f"{title!r}: nothing to append; a log entry needs a text, figures or runs")
    _check_writable(path, folder if figures else None)
    images = [_image(figure, title) for figure in figures]
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            log = path.read_bytes() if path.exists() else HEADER
            found = place(log)
            if found is None:
                return path
            links = [_link(_store(image, folder, date.today().isoformat()), image.name, path) for image in images]
            body = "\n\n".join(part for part in (_closed(text.strip("\n")), *links, *more) if part)
            _splice(path, log, found[0], (found[1] + body).rstrip("\n"))
    except Timeout:
        raise UsageError(f"{path}: another process has held the log for {LOCK_SECONDS:g} s; try again") from None
    return path


def _splice(path: Path, log: bytes, offset: int, text: str) -> None:
    """Insert ``text`` into the log at ``offset``, as a paragraph of its own; every other byte stays."""
    if text:
        before, after = log[:offset], log[offset:]
        *_, (_, closing) = ((b"", b""), *_opened(before))
        if closing and not after:  # left open by hand at the end of the log: it would swallow what comes now
            text = f"{closing.decode()}\n\n{text}"
        gap = b"" if not before or before.endswith(b"\n\n") else b"\n" if before.endswith(b"\n") else b"\n\n"
        write_atomic(path, before + gap + text.encode() + b"\n" + (b"\n" + after if after else b""))


def _headings(log: bytes) -> Iterator[tuple[int, str]]:
    """Offset and text of every ``## `` line outside code and comments."""
    offset = 0
    for line, closing in _opened(log):
        if not closing and line.startswith(b"## "):
            yield offset, line.decode(errors="replace").rstrip()
        offset += len(line)


def _opened(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every line of ``text`` with the text that would close the block open after it, such as three backquotes.

    Blocks are code, comments and raw HTML such as ``<pre>``; the text is empty where none is open.
    """
    closing = b""
    for line in text.splitlines(keepends=True):
        fence, block = FENCE.match(line), BLOCK.match(line)
        if closing[:1] in (b"`", b"~"):
            if fence and fence[1].startswith(closing) and line.strip() == fence[1]:
                closing = b""
        elif closing:
            closing = b"" if closing in line.lower() else closing
        elif fence:
            closing = fence[1]
        elif block:
            closing = b"</" + block[1].lower() + b">" if block[1] else b"-->"
            closing = b"" if closing in line[block.end() :].lower() else closing
        yield line, closing


def _closed(text: str) -> str:
    """``text`` with an open fence, comment or tag closed, so that it does not swallow what follows."""
    *_, (_, closing) = ((b"", b""), *_opened(text.encode()))
    if closing:
        return f"{text}\n{closing.decode()}"
    if text.rfind("<!--") > text.rfind("-->"):
        return f"{text} -->"
    tags = text.lower()
    return text + "\n</details>" * (tags.count("<details") - tags.count("</details>"))


def _end_of_entry(log: bytes, offset: int) -> int:
    """Where the entry at ``offset`` ends: the next heading, or the end of the log."""
    return next((start for start, _ in _headings(log) if start > offset), len(log))


def _marks(log: bytes) -> Iterator[tuple[int, str, str]]:
    """Offset, run and state of every hidden mark."""
    for mark in MARK.finditer(log):
        yield mark.start(), unquote(mark[1].decode(errors="replace")), mark[2].decode(errors="replace")


def _update_opening() -> str:
    return f"**update**: {date.today().isoformat()}. "


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
    from research.figures import render  # matplotlib takes a second

    return _Image(name, render(figure))


def _store(image: _Image, folder: Path, today: str) -> Path:
    stem = write_new(folder / f"{today}-{_slug(image.name)}", image.files)
    return stem.with_name(stem.name + next(iter(image.files)))


def _link(image: Path, name: str, log: Path) -> str:
    target = Path(os.path.relpath(image, log.parent)).as_posix()
    return f"![{re.sub(r'[][]', '', name)}]({quote(target)})"


def _slug(name: str) -> str:
    """``name`` as part of a file's name; a long one loses words of its middle, since ends tell figures apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "figure"
    if len(slug) <= 100:
        return slug
    return f"{slug[:50].rpartition('-')[0] or slug[:50]}-{slug[-50:].partition('-')[2] or slug[-50:]}"


def _table(runs: Runs | Sequence[str]) -> str:
    """A Markdown table of the runs; only names if nothing else is known."""
    if len(runs) == 0:
        return ""
    if not hasattr(runs, "columns"):
        return "Runs: " + ", ".join(f"`{name}`" for name in runs)
    from research.frames.configurations import word  # pandas takes a second

    lines = ["| run | changed parameters | status | last top-1 (%) | best |", "| --- | --- | --- | ---: | ---: |"]
    for run, changes in zip(runs.itertuples(), runs.changes(), strict=True):
        last, best = (f"{value:.2f}" if value == value else "" for value in (run.last_top1, run.best_top1))
        if run.epoch > 0 and run.last_loss != run.last_loss:
            last = f"{last}, loss not finite"
        told = ", ".join(word(key, value) for key, value in changes.items())
        told = told.replace("|", r"\|").replace("\n", " ")
        lines.append(f"| `{run.name}` | {told or 'none'} | {run.status} | {last} | {best} |")
    return "\n".join(lines)
