"""A table for a paper: results over seeds, what is best, what differs from a baseline, and published values beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from research.errors import UsageError, nearest
from research.frames import Runs
from research.frames.comparison import compare
from research.frames.configurations import differing, word
from research.frames.groups import RESULTS, Group, group_runs, label_changes
from research.frames.power_grad import SETTING
from research.frames.published import load_published
from research.frames.reports.text import latex, markdown
from research.frames.tables import p_value

LEVEL = 0.05
CELL = ["row", "column", "result", "n", "mean", "sd", "p_baseline", "differs", "p_next", "best", "published"]


class PaperTable(NamedTuple):
    """``cells``: a row for each cell, columns ``CELL``; ``notes``: what a caption has to say of them."""

    cells: pd.DataFrame
    notes: list[str]

    def markdown(self, digits: int = 2) -> str:
        return markdown(self.cells, self.notes, digits)

    def latex(self, digits: int = 2) -> str:
        """A ``table`` that needs the package booktabs; text is escaped."""
        return latex(self.cells, self.notes, digits)

    def csv(self) -> str:
        """A line a cell, numbers in full."""
        return self.cells.to_csv(index=False, lineterminator="\n")


def paper_table(
    runs: Runs,
    rows: Sequence[str] = (),
    columns: Sequence[str] = ("top1_err",),
    *,
    baseline: str = "",
    published: str = "",
) -> PaperTable:
    """Mean and standard deviation over seeds of every configuration of ``runs``.

    Rows are the values of the parameters ``rows``, or without them whatever tells configurations apart. ``columns`` are
    results (``RESULTS`` of :mod:`research.frames.groups`, of all of which less is better) and parameters, whose values
    lie side by side. All tests are those of one :func:`research.frames.comparison.compare`: p is adjusted over all.

    The least mean of a column is ``best`` only if it is below the next one with p of at most 0.05. ``differs`` says the
    same of a cell and the row ``baseline`` of its column. ``published`` names a table of published results whose
    columns are parameters; rows are matched by data set, model, schedule, smoothing and alpha.

    Raises:
        UsageError: no such column, parameter, baseline or table; two configurations in one cell.
    """
    results = [name for name in columns if name in RESULTS] or ["top1_err"]
    across = [name for name in columns if name not in RESULTS]
    for name in (*rows, *across):
        if name not in runs:
            known = [*RESULTS, *runs] if name in across else list(runs)
            raise UsageError(f"{name!r} is neither a result nor a parameter of these runs{nearest(name, known)}")
    placed = _placed(group_runs(runs), rows, across)
    names = list(dict.fromkeys(row for row, _ in placed))
    if baseline and baseline not in names:
        raise UsageError(f"no row is called {baseline!r}{nearest(baseline, names)}")
    values = {
        (row, column, result): group.by_seed(result) for (row, column), group in placed.items() for result in results
    }
    known, told = _published(placed, published) if published else ({}, [])
    frame = pd.DataFrame([
        (*cell, len(seeds), seeds.mean(), seeds.std(), np.nan, False, np.nan, False, known.get(cell, np.nan))
        for cell, seeds in values.items()
    ], columns=CELL)  # fmt: skip
    return PaperTable(*_tested(frame, list(values.values()), baseline, told))


def _placed(groups: Sequence[Group], rows: Sequence[str], across: Sequence[str]) -> dict[tuple[str, str], Group]:
    """(row, column) -> its group."""
    kept = [{name: value for name, value in group.changes.items() if name not in across} for group in groups]
    labels = [_words(group, rows) for group in groups] if rows else label_changes(kept)
    placed: dict[tuple[str, str], Group] = {}
    for label, group in zip(labels, groups, strict=True):
        place = label, _words(group, across)
        if place in placed:
            among = ", ".join(differing([placed[place].changes, group.changes]))
            raise UsageError(
                f"two configurations are in row {label!r}: {placed[place].label!r} and {group.label!r}; "
                f"add to rows or columns what they differ in: {among or 'the order of methods'}"
            )
        placed[place] = group
    return placed


def _words(group: Group, parameters: Sequence[str]) -> str:
    first = group.runs.iloc[0]
    absent = {name for name in parameters if pd.api.types.is_scalar(first[name]) and pd.isna(first[name])}
    return ", ".join(f"no {name}" if name in absent else word(name, first[name]) for name in parameters)


def _tested(
    frame: pd.DataFrame, values: Sequence[pd.Series], baseline: str, notes: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """``frame`` with its tests filled in, and the notes."""
    contrasts, ends = {}, []  # each pair of cells is tested once, whatever it is asked for
    for _, part in frame.groupby(["column", "result"], sort=False):
        order = part.dropna(subset="mean").sort_values("mean", kind="stable").index
        if len(order) > 1:
            ends.append((order[0], order[1]))
            contrasts[frozenset(order[:2])] = order[0], order[1]
        for base in part.index[part["row"] == baseline].intersection(order):
            contrasts |= {frozenset((cell, base)): (cell, base) for cell in order if cell != base}
    arms = {str(place): seeds for place, seeds in enumerate(values)}
    compared = compare(arms, [(str(arm), str(against)) for arm, against in contrasts.values()])
    p = dict(zip(contrasts, compared["p_holm"], strict=True))
    for pair, adjusted in p.items():
        base = [cell for cell in pair if frame.at[cell, "row"] == baseline]
        for cell in pair - set(base) if base else ():
            frame.loc[cell, ["p_baseline", "differs"]] = adjusted, bool(adjusted <= LEVEL)
    unclear = []
    for best, following in ends:
        adjusted = p[frozenset((best, following))]
        frame.loc[best, ["p_next", "best"]] = adjusted, bool(adjusted <= LEVEL)
        if not adjusted <= LEVEL:
            unclear.append(_unclear(frame.loc[best], frame.loc[following], adjusted))
    counts = sorted(set(frame["n"]) - {0})
    said = [f"Mean ± s.d. over {' to '.join(str(n) for n in dict.fromkeys((*counts[:1], *counts[-1:])))} seeds."]
    said += [f"Bold: below the next best (p ≤ {LEVEL}, Holm over {compared['p'].notna().sum()} tests)."] * bool(ends)
    said += [f"*: differs from {baseline} (same tests)."] * bool(baseline)
    return frame, said + unclear + notes


def _unclear(best: pd.Series, following: pd.Series, p: float) -> str:
    where = ", ".join(filter(None, (best["column"], RESULTS[best["result"]])))
    why = "too few seeds for a test" if np.isnan(p) else f"p = {p_value(p)}"
    return f"No best in {where}: {best['row']} cannot be told from {following['row']} ({why})."


def _published(
    placed: Mapping[tuple[str, str], Group], name: str
) -> tuple[dict[tuple[str, str, str], float], list[str]]:
    """Cell -> its published value, and what the published recipe differs in."""
    table = load_published(name)
    if missing := [setting for setting in SETTING if setting not in table]:
        raise UsageError(
            f"rows of the published table {name!r} cannot be matched with runs: it has no column {missing[0]!r}; "
            "'power-grad-imagenet' can, and for 'sparse' there is research.frames.sparse_results.beside_published"
        )
    found, others = {}, set()
    for place, group in placed.items():
        mine = {setting: group.runs.iloc[0].get(setting) for setting in table if setting in group.runs}
        mine[SETTING[-1]] = 1.0 if pd.isna(alpha := mine.get(SETTING[-1], np.nan)) else alpha
        rows = table[np.logical_and.reduce([table[setting] == mine[setting] for setting in SETTING])]
        if len(rows):
            error = float(100 - rows["top1"].iloc[0])
            found |= {(*place, result): error for result in ("top1_err", "best_top1_err")}
            others |= {key for key, value in mine.items() if not pd.isna(value) and value != rows[key].iloc[0]}
    told = [f"Published: {name}" + (f"; its runs differ in {', '.join(sorted(others))}." if others else ".")]
    return found, told if found else [f"Published: {name} has no row of these settings."]
