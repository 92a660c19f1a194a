"""Rows of metrics as they lie on disk: one JSON object a line, with a ``kind``, the ``step`` and the ``epoch``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_OLD_NAMES = {"split": "kind", "data_share": "data_wait"}  # of version 0.1, whose runs stay readable
_OLD_KINDS = {"epoch": "train_epoch"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows in ``path``; what is no row, such as the torn line of a crash or a running writer, is skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        values = json.loads(b"[" + b",".join(lines) + b"]")  # one parse is four times faster than one a line
    except ValueError:
        values = [_parse(line) for line in lines]
    return [row for value in values if (row := _row(value)) is not None]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _row(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    if "split" in value:
        value = {_OLD_NAMES.get(name, name): number for name, number in value.items()}
        value["kind"] = _OLD_KINDS.get(value["kind"], value["kind"])
    return value if {"kind", "step", "epoch"} <= value.keys() else None
