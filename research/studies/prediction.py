"""The runs of a study as candidates: measured before any is trained, beside the results of those that are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from research.errors import UsageError, nearest
from research.frames.candidates import MEASURES, Candidate, measured
from research.runs.status import recorded
from research.studies.study import expand, read_study


def predicted(study: str | Path, seeds: int = 0, runs: str | Path = "") -> pd.DataFrame:
    """The table of :func:`~research.frames.candidates.measured` of a study's runs, and ``top1`` of the finished ones.

    Args:
        seeds: how many of an arm are measured, in the study's order; 0 = all.
        runs: the folder in which its runs are, if it is not the study's own.

    Raises:
        UsageError: every problem of the study.
    """
    points = expand(read_study(study))
    order = pd.Series([point.arm for point in points])
    place = order.groupby(order).cumcount()
    chosen = [point for point, nth in zip(points, place, strict=True) if not seeds or nth < seeds]
    table = measured(Candidate(point.dir.name, point.arm, point.config) for point in chosen)
    ended = {}
    for point in chosen:
        said = recorded(Path(runs) / point.dir.name if runs else point.dir)
        if said["status"] == "finished":
            ended[point.dir.name] = said.get("last_top1")
    return table.assign(top1=table["run"].map(ended).astype(float))


def score_named(name: str) -> str:
    """``name`` if it is one of MEASURES.

    Raises:
        UsageError: it is none.
    """
    if name not in MEASURES:
        raise UsageError(f"by={name!r}: unknown measure{nearest(name, MEASURES)}")
    return name
