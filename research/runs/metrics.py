"""Rows of metrics on disk: one JSON object a line, with a ``kind``, the ``step`` and the ``epoch``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from research.files import write_atomic

BLOCK = 4096  # bytes that are read at a time from the end: some rows
PART = 2**17  # bytes that are read at a time from the beginning: their rows stay in the caches of a processor

_OLD_NAMES = {"split": "kind", "data_share": "data_wait"}  # of version 0.1, whose runs stay readable
_OLD_KINDS = {"epoch": "train_epoch"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The complete rows in ``path``; other lines, such as one torn by a crash or still being written, are skipped."""
    return list(each_row(path))


def each_row(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of :func:`read_rows` one by one, of which only some are in memory."""
    return chain.from_iterable(each_part(path))


def each_part(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of :func:`read_rows`, some at a time, so that few are in memory."""
    try:
        with open(path, "rb") as file:
            while lines := b"".join(file.readlines(PART)).splitlines():
                try:
                    values = orjson.loads(b"[" + b",".join(lines) + b"]")  # twelve times faster than json, one a line
                except ValueError:  # a line that is none, or has NaN, which only json reads
                    yield [row for line in lines if (row := read_row(line)) is not None]
                else:
                    yield [row for value in values if (row := _row(value)) is not None]
    except FileNotFoundError:
        return


def newest_rows(path: Path, saying: bytes = b"") -> Iterator[dict[str, Any]]:
    """The rows of :func:`read_rows`, the newest first; of a large file only as much is read as is asked for.

    With ``saying``, only rows of lines that have these bytes; others are not parsed.
    """
    try:
        with open(path, "rb") as file:
            end, rest = file.seek(0, os.SEEK_END), b""
            while end:
                start = max(0, end - BLOCK)
                file.seek(start)
                rest = file.read(end - start) + rest
                whole = (rest.find(b"\n") + 1 or len(rest)) if start else 0  # before it, a line may lack its beginning
                for line in reversed(rest[whole:].splitlines()):
                    if saying in line and (row := read_row(line)) is not None:
                        yield row
                rest, end = rest[:whole], start
    except FileNotFoundError:
        return


def read_row(line: bytes) -> dict[str, Any] | None:
    """``line`` as a row, or ``None`` if it is not one."""
    try:
        return _row(json.loads(line))
    except (ValueError, RecursionError):
        return None


def length_on_disk(path: Path) -> int:
    """Bytes of ``path`` after all of them have reached the disk: a power cut leaves at least as many."""
    with open(path, "ab") as file:
        os.fsync(file.fileno())
        return file.tell()


def cut(path: Path, length: int, step: int, epoch: int, batch: int) -> str:
    """Drop the rows of ``path`` that were written after a checkpoint, taken at this place and ``length`` bytes.

    If the file has changed since - it is shorter, or has lines that are no rows - the complete rows up to that place
    are kept. Returns a text that says what was lost, else an empty one.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content[:length].splitlines(keepends=True)
    rows = [(line, row) for line in lines if line.endswith(b"\n") and (row := read_row(line))]
    kept = [line for line, row in rows if (row["step"], row["epoch"]) < (step, epoch + (batch > 0))]
    if len(content) >= length and len(kept) == len(lines):
        os.truncate(path, length)
        return ""
    write_atomic(path, b"".join(kept))
    return (
        f"{path.name} is not what it was at the checkpoint of step {step}: {len(content):,} of {length:,} bytes, "
        f"{len(lines) - len(rows)} lines that are no rows; the {len(kept)} whole rows up to there are kept"
    )


def _row(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    if "split" in value:
        value = {_OLD_NAMES.get(name, name): number for name, number in value.items()}
        value["kind"] = _OLD_KINDS.get(value["kind"], value["kind"])
    sound = isinstance(value.get("kind"), str) and _is_place(value.get("step")) and _is_place(value.get("epoch"))
    return value if sound else None


def _is_place(number: Any) -> bool:
    return type(number) is int and -(2**63) <= number < 2**63  # more fit into no column of a table
