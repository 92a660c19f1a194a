"""What runs are and how far they came, a mapping each: tables without the cost of a library for tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from research.config import Config
from research.config.merging import NESTED
from research.errors import UsageError, closest, nearest
from research.runs.metrics import newest_rows
from research.runs.paths import RunPaths
from research.runs.status import status_of


def read_summaries(
    path: Path | str, names: str | Iterable[str] | None = None
) -> tuple[list[dict[str, Any]], dict[Path, str]]:
    """The runs under ``path`` (or that it is) called ``names``: a row of :class:`research.frames.Runs` for each.

    Names and the last part of ``path`` may be patterns. Also returns the problems of the folders that cannot be read.

    Raises:
        UsageError: there is no such folder, or no such run; says what there is.
    """
    path = Path(path)
    if names is None and not path.exists() and set("*?[") & set(path.name):
        path, names = path.parent, path.name
    if not path.is_dir():
        there = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise UsageError(f"no folder of runs at {path}{closest(path.name, there)}")
    rows, unreadable, plain = [], {}, Config().to_dict()
    for directory in _directories(path, ["*"] if names is None else [names] if isinstance(names, str) else list(names)):
        try:
            rows.append(_summary(directory, _read_config(directory, plain)))
        except FileNotFoundError:  # it was removed meanwhile
            continue
        except (OSError, ValueError, RecursionError) as error:
            unreadable[directory] = str(error)
    return rows, unreadable


def _directories(path: Path, patterns: list[str]) -> list[Path]:
    """The folders of the runs under ``path`` (or of the run that it is) whose name matches one of ``patterns``."""
    if RunPaths(path).config.is_file():
        found = [path.resolve()]
    else:
        called = [path / name for name in patterns]  # one by one, where these are names: the folder may hold thousands
        if all(
            Path(each).name == each and RunPaths(run).config.is_file()
            for each, run in zip(patterns, called, strict=True)
        ):
            found = [run.resolve() for run in sorted(set(called))]
            if all(run.name in patterns for run in found):  # none of them is another name of a run
                return found
        found = [directory.parent.resolve() for directory in sorted(path.glob("*/config.json"))]
    if not found:
        raise UsageError(f"no runs in {path}; `research train` makes one")
    known = [directory.name for directory in found]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in known):
            raise UsageError(f"no run in {path} is called {pattern!r}{nearest(pattern, known)}")
    return [directory for directory in found if any(fnmatch(directory.name, pattern) for pattern in patterns)]


def _read_config(directory: Path, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run, filled in with the defaults ``plain``; ValueError when the file holds something else."""
    path = RunPaths(directory).config
    config = json.loads(path.read_bytes())
    if not isinstance(config, dict):
        raise ValueError(f"{path.name} does not hold the parameters of a run")
    odd = [name for name, value in config.items() if name in plain and not _fits(value, plain[name])]
    odd += [f"hooks.{name}" for name, given in (config.get("hooks") or {}).items() if not isinstance(given, dict)]
    if odd:
        raise ValueError(f"{path.name} has values of a wrong kind: {', '.join(odd)}")
    return {**plain, **config}


def _fits(value: Any, default: Any) -> bool:
    """Whether ``value`` is of the kind of a parameter's default: number, text, list, mapping, or (of none) a number."""
    for kinds in ((bool,), (int, float), (str,), (list,), (dict,)):
        if isinstance(default, kinds):
            return isinstance(value, kinds)
    return value is None or isinstance(value, int)


def _summary(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    status = status_of(directory)
    newest = newest_rows(RunPaths(directory).metrics, saying=b'"val"')
    evaluated = (row.get("loss") for row in newest if row["kind"] == "val")
    losses = (number(loss) for loss in evaluated if loss is None or isinstance(loss, (int, float)))
    row = {"name": directory.name, "status": status["status"]}
    row |= {name: value for name, value in config.items() if name not in (*NESTED, "name")}
    row["hooks"] = "+".join(config["hooks"])
    for owner, given in [
        *config["hooks"].items(),
        ("model_args", config["model_args"]),
        ("data_args", config["data_args"]),
    ]:
        row |= {f"{owner}.{name}": value for name, value in given.items()}
    row |= {"epoch": status.get("epoch", 0), "step": status.get("step", 0)}
    measured = {name: status.get(name) for name in ("best_top1", "last_top1", "seconds")}
    row |= {name: number(value) for name, value in measured.items()}
    row["last_loss"] = next(losses, float("nan"))
    return row | {"message": status.get("message", ""), "dir": str(directory)}


def number(value: float | None) -> float:
    """``value`` as a float: NaN for none, infinite where it is beyond what a float holds."""
    try:
        return float("nan") if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
