"""Runs for a notebook that is given none: those of the project, else an example's, which are made then."""

from __future__ import annotations

from collections.abc import Callable, Sized

from research.errors import Failure, UsageError
from research.frames import Runs, load_runs
from research.studies.stages import stages
from research.studies.sweep import fit_together

FOLDER = "runs"  # of all runs, where none is named


def runs_or_example(runs: str | None, example: str, read: Callable[[Runs], Sized], log: str = "") -> str:
    """Where to read runs: in ``runs``; when it is None, in ``runs/`` if ``read`` finds anything in what lies there.

    Else in ``runs/examples/<example>``, after the study ``examples/<example>`` has been trained there: a few runs of
    seconds, for a look at what a notebook shows. What was trained is not trained again. With a ``log`` no example is
    made, for it belongs in no log.

    Raises:
        Failure: a run of the example failed.
    """
    if runs is not None:
        return runs
    if log or finds_any(read):
        return FOLDER
    stage = next(stages(f"examples/{example}"))
    place = stage.points[0].config.runs
    print(
        f"{FOLDER}/ has no runs for this notebook, so {len(stage.points)} small ones are made in {place}/. They show "
        "how to read what follows and tell nothing of methods: few seeds, few epochs, easy data."
    )
    if fit_together(stage.study, stage.points, stage.begin):
        raise Failure(f"not all runs of {place} could be trained")
    return place


def finds_any(read: Callable[[Runs], Sized]) -> bool:
    """Whether ``read`` finds anything in ``runs/``."""
    try:
        return len(read(load_runs(FOLDER))) > 0
    except UsageError:  # there is no run, or none of the kind
        return False


def two_alike(runs: Runs) -> list[str]:
    """The names of the first two finished runs that were evaluated on the same data; empty when there are no two."""
    finished = runs[runs["status"] == "finished"]
    columns = ["dataset", "data_root", *(name for name in runs if name.startswith("data_args."))]
    for _, alike in finished.groupby([finished[column].astype(str) for column in columns], sort=False):
        if len(alike) > 1:
            return alike["name"].head(2).tolist()
    return []
