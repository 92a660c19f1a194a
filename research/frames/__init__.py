"""runs/ -> frames. A run that is being written is read up to its last whole row."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from research.config import Config
from research.config.checks import without_defaults
from research.config.identity import NOT_IDENTITY
from research.config.merging import NESTED
from research.errors import UsageError
from research.files import read_json
from research.frames.configurations import configuration, differing, key, told_apart, word
from research.plugins.source import remember
from research.runs.columns import numbers_of
from research.runs.paths import RunPaths
from research.runs.summaries import read_summaries


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
        return numbers_of(map(Path, self["dir"]))

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
            given = {name: value for name, value in known.items() if value != "" or name not in plain}  # "" is no word
            words = [word(name, value) for name, value in given.items()]
            labels[key(changes)] = changes, " ".join(words or (["plain"] if names else [dataset, model, hooks])).strip()
        apart = told_apart([label for _, label in labels.values()], [changes for changes, _ in labels.values()])
        labels = dict(zip(labels, apart, strict=True))
        return pd.Series([labels[key(each)] for each in told], index=self.index, dtype=object, name="configuration")


def _not_understood(path: Path) -> str:
    try:
        content = path.read_bytes()
        remember(read_json(path, {}).get("plugin") or (), RunPaths(path.parent).plugins)
        return _problem_of(content)
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    except UsageError as error:
        return str(error)


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
    rows, unreadable = read_summaries(path, names)
    for directory, problem in unreadable.items():
        warnings.warn(f"{directory} cannot be read and is left out: {problem}", stacklevel=2)
    if not rows:
        raise UsageError(f"no run in {path} has a readable config.json")
    return Runs(rows)


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
