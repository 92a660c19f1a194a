"""``summary.csv``: one line an epoch, made of the rows of metrics; for spreadsheets, and whoever reads such files.

The first six columns are those of the ``summary.csv`` that PowerGrad's trainer left. Accuracies are percent, losses
nats; ``epoch`` counts those that are done, ``lr`` is the rate of the epoch's last step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
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
HEADER = ["epoch", *COLUMNS]


def update(paths: RunPaths) -> None:
    """Bring the table up to the newest row of metrics; what a run that went back to a checkpoint had later goes."""
    known = _read(paths)
    missing: dict[int, dict[str, Any]] = {}
    for row in newest_rows(paths.metrics):
        epoch = row["epoch"] + 1
        if missing and epoch < max(missing) and epoch in known:
            break
        line = missing.setdefault(epoch, {})
        for name, (kind, value) in COLUMNS.items():
            if row["kind"] == kind:
                line.setdefault(name, row.get(value))
    whole = {epoch: line for epoch, line in missing.items() if "eval_top1" in line}
    if whole:
        kept = {epoch: line for epoch, line in known.items() if epoch < max(whole)} | whole
        write_atomic(paths.summary, _text({"epoch": epoch, **kept[epoch]} for epoch in sorted(kept)))


def _read(paths: RunPaths) -> dict[int, Mapping[str, Any]]:
    """The lines that are there, by epoch; none of a file that is another's, or torn."""
    try:
        with open(paths.summary, newline="") as file:
            table = csv.DictReader(file)
            whole = (line for line in table if None not in line.values()) if table.fieldnames == HEADER else ()
            return {int(line.pop("epoch")): line for line in whole}
    except (OSError, ValueError):
        return {}


def _text(lines: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, HEADER, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()
