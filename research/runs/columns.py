"""Rows of metrics become columns: every number a row, gathered many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from research.runs.metrics import each_part
from research.runs.paths import RunPaths
from research.runs.summaries import number

LONG = ("run", "kind", "step", "epoch", "metric", "value")


class Numbers:
    """Columns of numbers that grow by rows; names are kept as small numbers, which take less memory."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {"run": {}, "kind": {}, "metric": {}}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in ("row", *LONG)}
        self._texts: dict[str, dict[int, str]] = {}
        self._rows = 0

    def add(self, directory: Path) -> None:
        """Everything that the run in ``directory`` has logged so far."""
        for part in each_part(RunPaths(directory).metrics):
            alike: dict[tuple, list[int]] = {}  # rows of the same names and types, which are columns as they are
            for at, row in enumerate(part):
                alike.setdefault((*row, *map(type, row.values())), []).append(at)
            for places in alike.values():
                self._add(directory.name, np.array(places) + self._rows, [part[at] for at in places])
            self._rows += len(part)

    def _add(self, run: str, places: np.ndarray, rows: list[dict[str, Any]]) -> None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        others = {name: column for name, column in columns.items() if name not in LONG}
        numbers = {name: c for name, c in others.items() if c[0] is None or isinstance(c[0], (int, float))}
        if not numbers:
            return
        for name, column in others.items():
            if isinstance(column[0], str):
                self._texts.setdefault(name, {}).update(zip(places.tolist(), column, strict=True))
        said = {
            "row": places,
            "run": np.full(len(rows), self._number("run", run), np.int32),
            "kind": np.array([self._number("kind", kind) for kind in columns["kind"]], np.int32),
            "step": np.array(columns["step"], np.int64),
            "epoch": np.array(columns["epoch"], np.int64),
        }
        for name, column in said.items():
            self._columns[name].append(column.repeat(len(numbers)))
        names = np.array([self._number("metric", name) for name in numbers], np.int32)
        self._columns["metric"].append(np.tile(names, len(rows)))
        self._columns["value"].append(np.stack([_floats(column) for column in numbers.values()], axis=1).ravel())

    def _number(self, column: str, name: str) -> int:
        return self._names[column].setdefault(name, len(self._names[column]))

    def frame(self) -> pd.DataFrame:
        """One number a row, in the order in which they were logged."""
        rows = self._joined("row", np.int64)
        order = None if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")
        frame = {}
        for name in LONG:
            column = self._joined(name, {"step": np.int64, "epoch": np.int64, "value": float}.get(name, np.int32))
            column = column if order is None else column[order]
            frame[name] = _named(self._names[name], column) if name in self._names else column
        rows = rows if order is None else rows[order]
        frame |= {name: pd.Series(t).reindex(rows).to_numpy() for name, t in self._texts.items()}
        return pd.DataFrame(frame, copy=False)  # the columns are its own

    def _joined(self, name: str, kind: type) -> np.ndarray:
        return np.concatenate([np.empty(0, kind), *self._columns.pop(name)])


def numbers_of(directories: Iterable[Path]) -> pd.DataFrame:
    """Everything that the runs in ``directories`` have logged so far, see ``Runs.metrics``."""
    numbers = Numbers()
    for directory in directories:
        numbers.add(directory)
    return numbers.frame()


def _floats(column: list) -> np.ndarray:
    return np.array(column if isinstance(column[0], float) else [number(each) for each in column])


def _named(numbers: Mapping[str, int], column: np.ndarray) -> pd.Series:
    return pd.Series(list(numbers), dtype=str).take(column).reset_index(drop=True)
