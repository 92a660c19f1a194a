"""runs/ -> frames. A run that is being written is read up to its last whole row."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from research.config import Config
from research.config.checks import without_defaults
from research.config.identity import NOT_IDENTITY
from research.config.merging import NESTED
from research.errors import UsageError, closest, nearest
from research.files import read_json
from research.frames.configurations import configuration, differing, key, told_apart, word
from research.runs.metrics import newest_rows, read_rows
from research.runs.paths import RunPaths
from research.runs.status import status_of

LONG = ("run", "kind", "step", "epoch", "metric", "value")


class Runs(pd.DataFrame):
    """One row a run: ``name``, ``status``, every field of its Config, and how far it came.

    ========================  ==========================================================================
    ``status``                created, running, finished, failed or interrupted; killed is interrupted
    ``hooks``                 names of its hooks in order, joined by ``+``; ``""`` for none
    ``gram.k`` …              hook parameters, missing (NaN) where a run does not have the hook
    ``model_args.width`` …    arguments of the network and of the data set, likewise
    ``epoch`` ``step``        epochs and optimizer steps done
    ``best_top1``             percent on the validation set; ``last_top1`` after the newest epoch
    ``last_loss``             newest validation loss
    ``seconds``               training time so far
    ``dir``                   the run's directory; :attr:`metrics` and :meth:`labels` read there when asked
    ========================  ==========================================================================
    """

    @property
    def _constructor(self):
        return Runs

    @property
    def metrics(self) -> pd.DataFrame:
        """Everything these runs have logged so far, one number a row.

        Columns: run, kind, step, epoch, metric, value (float64; NaN where it was not finite), and one column for each
        text that rows carry, such as layer. Rows without a number, such as notes, are left out.
        """
        rows, numbers = [], []
        for directory in map(Path, self["dir"]):
            for row in read_rows(RunPaths(directory).metrics):
                given = {name: value for name, value in row.items() if name not in LONG}
                measured = {name: v for name, v in given.items() if v is None or isinstance(v, (int, float))}
                if measured:
                    numbers += [(len(rows), name, _number(value)) for name, value in measured.items()]
                    where = {"run": directory.name, **{name: row[name] for name in ("kind", "step", "epoch")}}
                    rows.append(where | {name: value for name, value in given.items() if isinstance(value, str)})
        long = pd.DataFrame(numbers, columns=["row", "metric", "value"]).astype({"row": int, "value": float})
        frame = pd.DataFrame(rows, columns=None if rows else ["run", "kind", "step", "epoch"])
        frame = frame.take(long.pop("row")).reset_index(drop=True)
        frame[["metric", "value"]] = long
        return frame[[*LONG, *(name for name in frame.columns if name not in LONG)]]

    def changes(self) -> list[dict[str, Any]]:
        """For every run, the parameters that differ from their default and define what it computed.

        Hook parameters are dotted; a hook with default parameters only is ``{"gram": ""}``.
        """
        return [_changes(read_json(RunPaths(directory).config, {})) for directory in self["dir"]]

    def understood(self) -> Runs:
        """The runs whose parameters this version knows; warns of the others, such as those of a newer version.

        For what has to know what a run's methods and network are; its metrics can be read anyway.
        """
        problems = [_not_understood(RunPaths(directory).config) for directory in self["dir"]]
        for name, problem in zip(self["name"], problems, strict=True):
            if problem:
                warnings.warn(f"{name} is left out: {problem}", stacklevel=3)
        return self[[not problem for problem in problems]]

    def labels(self) -> pd.Series:
        """A name for every run's configuration: its differences from the other runs, apart from the seed."""
        told, plain = list(map(configuration, self.changes())), Config().to_dict()
        names = sorted(differing(told), key=lambda name: name not in plain)  # hooks last
        labels = {}  # of each configuration
        for changes, dataset, model, hooks in zip(told, self["dataset"], self["model"], self["hooks"], strict=True):
            known = {name: changes.get(name, plain.get(name)) for name in names if name in changes or name in plain}
            words = [word(name, value) for name, value in known.items()]
            labels[key(changes)] = changes, " ".join(words or (["plain"] if names else [dataset, model, hooks])).strip()
        apart = told_apart([label for _, label in labels.values()], [changes for changes, _ in labels.values()])
        labels = dict(zip(labels, apart, strict=True))
        return pd.Series([labels[key(each)] for each in told], index=self.index, dtype=object, name="configuration")


def _not_understood(path: Path) -> str:
    try:
        return _problem_of(path.read_bytes())
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


@lru_cache(maxsize=10_000)  # every table asks for itself
def _problem_of(config: bytes) -> str:
    try:
        Config.stored(json.loads(config))
    except UsageError as error:
        return str(error).splitlines()[0]
    return ""


def load_runs(path: Path | str = "runs", names: str | Iterable[str] | None = None) -> Runs:
    """The runs under ``path`` (or the run that ``path`` is) whose name matches one of ``names``.

    Names may be patterns with ``*`` and ``?``, and so may the last part of ``path``: ``runs/demo-*``.

    Raises:
        UsageError: there is no such folder, or no such run; says what there is.
    """
    runs, unreadable = read_runs(path, names)
    for directory, problem in unreadable.items():
        warnings.warn(f"{directory} cannot be read and is left out: {problem}", stacklevel=2)
    if not len(runs):
        raise UsageError(f"no run in {path} has a readable config.json")
    return runs


def read_runs(path: Path | str, names: str | Iterable[str] | None = None) -> tuple[Runs, dict[Path, str]]:
    """The runs of :func:`load_runs` that can be read, and the problems of the folders that cannot."""
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
    return Runs(rows), unreadable


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
    evaluated = (row.get("loss") for row in newest_rows(RunPaths(directory).metrics) if row["kind"] == "val")
    losses = (_number(loss) for loss in evaluated if loss is None or isinstance(loss, (int, float)))
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
    row |= {name: _number(value) for name, value in measured.items()}
    row["last_loss"] = next(losses, float("nan"))
    return row | {"message": status.get("message", ""), "dir": str(directory)}


def _number(value: float | None) -> float:
    """``value`` as a float: NaN for none, infinite where it is beyond what a float holds."""
    try:
        return float("nan") if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _changes(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = Config().to_dict()
    found = {k: v for k, v in config.items() if k not in (*NOT_IDENTITY, *NESTED) and v != plain.get(k)}
    for owner in ("model_args", "data_args"):
        found |= {f"{owner}.{name}": value for name, value in config.get(owner, {}).items()}
    for hook, given in config.get("hooks", {}).items():
        constructed = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        changed = {f"{hook}.{name}": given[name] for name in without_defaults(hook, constructed)}
        found |= changed or {hook: ""}
    return found
