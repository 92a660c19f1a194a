"""``summary.csv``: one line an epoch, made of the rows of metrics; for spreadsheets, and whoever reads such files.

The first six columns are those of the ``summary.csv`` that PowerGrad's trainer left. Accuracies are percent, losses
nats; ``epoch`` counts those that are done, ``lr`` is the rate of the epoch's last step.
"""

from __future__ import annotations

from typing import Any

from research.files import write_atomic
from research.runs.metrics import newest_rows
from research.runs.paths import RunPaths

COLUMNS = {  # name -> (kind of row, value in it)
    "train_loss": ("train_epoch", "loss"),
    "train_acc": ("train_epoch", "top1"),
    "eval_loss": ("val", "loss"),
    "eval_top1": ("val", "top1"),
    "eval_top5": ("val", "top5"),
    "lr": ("train", "lr"),
}
HEADER = ",".join(["epoch", *COLUMNS])


def update(paths: RunPaths) -> None:
    """Bring the table up to the newest row of metrics; what a run that went back to a checkpoint had later goes."""
    known = _read(paths)
    found = _missing(paths, known)
    if not found:
        return
    lines = {epoch: line for epoch, line in known.items() if epoch < min(found)} | found
    if lines != known:
        write_atomic(paths.summary, "\n".join([HEADER, *(lines[epoch] for epoch in sorted(lines))]) + "\n")


def _missing(paths: RunPaths, known: dict[int, str]) -> dict[int, str]:
    """The lines from the newest evaluated epoch back to one that is known, by epoch."""
    values: dict[int, dict[str, Any]] = {}
    for row in newest_rows(paths.metrics):
        epoch = row["epoch"] + 1
        if epoch in known and any("eval_top1" in later for number, later in values.items() if number > epoch):
            break
        for name, (kind, value) in COLUMNS.items():
            if row["kind"] == kind:
                values.setdefault(epoch, {}).setdefault(name, row.get(value))
    return {epoch: _line(epoch, of_epoch) for epoch, of_epoch in values.items() if "eval_top1" in of_epoch}


def _line(epoch: int, values: dict[str, Any]) -> str:
    """A value that is not known, or was not finite, is empty."""
    each = (values.get(name) for name in COLUMNS)
    return ",".join([str(epoch), *("" if value is None else repr(value) for value in each)])


def _read(paths: RunPaths) -> dict[int, str]:
    """The lines that are there, by epoch; none of a file that is another's, or torn."""
    try:
        header, *lines = paths.summary.read_text().splitlines()
    except (OSError, ValueError):
        return {}
    whole = [line for line in lines if line.count(",") == len(COLUMNS)]
    try:
        return {int(line.partition(",")[0]): line for line in whole} if header == HEADER else {}
    except ValueError:
        return {}
