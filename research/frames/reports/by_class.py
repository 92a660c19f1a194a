"""Results class by class: every configuration over its seeds, from the best weights of its runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from research.errors import UsageError
from research.frames import Runs
from research.measures.mistakes import by_class, confusion
from research.trained.predictions import validation_logits

ALL = "all"  # the row of all classes together


def class_summary(runs: Runs, given: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A row for every configuration and class, and one of all images: means over the finished runs of it.

    Columns: configuration, class ("all" of all images), n (runs), images, accuracy, sd, precision (percent; sd over
    runs). ``given`` is what :func:`research.trained.predictions.validation_logits` takes. Runs that cannot be evaluated
    are left out with a warning.

    Raises:
        UsageError: none is left.
    """
    finished = runs[runs["status"] == "finished"].understood()
    rows = []
    for run, label in zip(finished.itertuples(), finished.labels(), strict=True):
        try:
            logits, targets = validation_logits(run.dir, given)
        except UsageError as error:
            warnings.warn(f"{run.name} is left out: {error}", stacklevel=2)
            continue
        matrix = confusion(logits.argmax(1), targets, logits.shape[1])
        total = 100 * matrix.diagonal().sum() / len(targets)
        rows.append(
            {"configuration": label, "class": ALL, "images": len(targets), "accuracy": total, "precision": total}
        )
        rows += [
            {"configuration": label, "class": str(each.label), "images": each.images, "accuracy": each.accuracy}
            | {"precision": each.precision}
            for each in by_class(matrix)
        ]
    if not rows:
        raise UsageError("no finished run can be evaluated, so there are no results by class")
    grouped = pd.DataFrame(rows).groupby(["configuration", "class"], sort=False)
    table = grouped.agg(n=("accuracy", "size"), images=("images", "first"), accuracy=("accuracy", "mean"))
    return table.assign(sd=grouped["accuracy"].std(), precision=grouped["precision"].mean()).reset_index()
