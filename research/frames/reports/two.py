"""Two configurations side by side: what differs in their parameters, curves and results, paired over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from research.config import Config
from research.errors import UsageError
from research.frames import Runs
from research.frames.comparison import compare
from research.frames.configurations import differing, methods, owner
from research.frames.groups import RESULTS, Group, group_runs
from research.frames.tables import interval, plus_minus, readable

SIDES = ("A", "B")
CURVES = {("train_epoch", "loss"): "training loss", ("val", "loss"): "validation loss", ("val", "top1"): "top-1 (%)"}


def side_by_side(ours: Runs, theirs: Runs, points: int = 5) -> dict[str, pd.DataFrame]:
    """Tables of text by their title: configuration, curves at ``points`` common epochs, and results.

    Differences are A minus B, over seeds that both have where there are two: those of
    :func:`research.frames.comparison.compare`. p is adjusted over the results; curves have intervals only.

    Raises:
        UsageError: a side holds runs of several configurations.
    """
    groups = {side: _one(side, runs) for side, runs in zip(SIDES, (ours, theirs), strict=True)}
    tables = {
        "Configuration": _configuration(*groups.values()),
        "Curves": _curves(groups, points),
        "Results": _results(groups),
    }
    return {title: table for title, table in tables.items() if len(table)}


def _one(side: str, runs: Runs) -> Group:
    groups = group_runs(runs)
    if len(groups) != 1:
        found = ", ".join(repr(group.label) for group in groups) or "none that this version understands"
        raise UsageError(f"{side} has to be runs of one configuration, which differ in their seed; it holds {found}")
    return groups[0]


def _configuration(ours: Group, theirs: Group) -> pd.DataFrame:
    changes = ours.changes, theirs.changes
    rows = [(name, *(_told(name, mine) for mine in changes)) for name in differing(changes)]
    if not rows and methods(changes[0]) != methods(changes[1]):
        rows = [("order of methods", *(" ".join(methods(mine)) for mine in changes))]
    rows.append(("seeds", *(" ".join(map(str, sorted(set(group.runs["seed"])))) for group in (ours, theirs))))
    return pd.DataFrame(rows, columns=["parameter", *SIDES])


def _told(name: str, mine: Mapping[str, Any]) -> str:
    """The value of a parameter, its default included; a method that is on, or is not there."""
    if name in mine:
        return "on" if mine[name] == "" else str(mine[name])
    if "." not in name and name in Config.parameters():
        return str(getattr(Config(), name))
    return "default" if owner(name) in (*methods(mine), "data_args", "model_args") else "off"


def _curves(groups: Mapping[str, Group], points: int) -> pd.DataFrame:
    rows = []
    logged = {side: group.runs.metrics for side, group in groups.items()}
    for (kind, metric), title in CURVES.items():
        found = {side: _by_epoch(logged[side], groups[side].runs, kind, metric) for side in SIDES}
        epochs = found["A"].columns.intersection(found["B"].columns)
        places = np.linspace(0, len(epochs) - 1, min(points, len(epochs))).round().astype(int)
        for epoch in epochs[np.unique(places)]:
            arms = {side: found[side][epoch].dropna() for side in SIDES}
            row = compare(arms, [SIDES]).iloc[0]
            means = [plus_minus(values, 3) for values in arms.values()]
            rows.append((title, str(epoch + 1), *means, interval(row["difference"], row["low"], row["high"], 3)))
    return pd.DataFrame(rows, columns=["curve", "after epoch", *SIDES, "A - B [95 %]"])


def _by_epoch(metrics: pd.DataFrame, runs: Runs, kind: str, metric: str) -> pd.DataFrame:
    """A row a seed, a column an epoch."""
    rows = metrics[(metrics["kind"] == kind) & (metrics["metric"] == metric)]
    rows = rows.drop_duplicates(["run", "epoch"], keep="last")
    seeds = rows["run"].map(runs.set_index("name")["seed"]).rename("seed")
    return rows.pivot_table(index=seeds, columns="epoch", values="value").rename(columns=int)


def _results(groups: Mapping[str, Group]) -> pd.DataFrame:
    arms = {
        f"{side} {result}": values
        for result in RESULTS
        for side, values in ((side, group.by_seed(result)) for side, group in groups.items())
    }
    shown = [name for name in RESULTS if all(len(arms[f"{side} {name}"]) for side in SIDES)]
    compared = compare(arms, [(f"A {name}", f"B {name}") for name in shown])
    table = pd.DataFrame({"result": [RESULTS[name] for name in shown]})
    for side in SIDES:
        table[side] = [plus_minus(arms[f"{side} {name}"]) for name in shown]
    if not shown:
        return table
    told = readable(compared, {"arm": "arm"}).drop(columns="arm")
    return table.join(told.rename(columns={"difference [95 %]": "A - B [95 %]"}))
