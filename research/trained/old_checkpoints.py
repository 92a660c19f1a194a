"""Checkpoints of finished runs, which nobody continues: what may go by a rule. Metrics and best weights never do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from research.checkpoints.checkpoint import step_of
from research.errors import UsageError
from research.runs.leftovers import Leftover
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.runs.status import held, recorded
from research.training.sources import places

Rule = Literal["older", "all"]


def find_checkpoints(folder: Path, rule: Rule) -> list[Leftover]:
    """Checkpoints of finished runs in ``folder`` and below: ``older`` ones than the newest, or ``all``.

    The newest has the last weights of a run, masks among them. Of a run that another one in ``folder``, not finished
    yet, starts from, it stays.
    """
    runs = [path.parent for path in sorted(folder.rglob(RunPaths("").config.name)) if not path.is_symlink()]
    needed = {place for run in runs if not _is_finished(run) for place in _starts_from(run)}
    found = []
    for run in filter(_is_finished, runs):
        by_age = sorted(RunPaths(run).checkpoints.glob("[0-9]*.pt"), key=lambda path: step_of(path.name))
        keeps_newest = rule == "older" or run.resolve() in needed
        what = "a checkpoint of a finished run"
        found += [Leftover(path, what, path.stat().st_size) for path in by_age[: -1 if keeps_newest else None]]
    return found


def remove_checkpoint(checkpoint: Leftover) -> None:
    """Remove what was found, unless its run is trained again meanwhile, begun anew."""
    if _is_finished(checkpoint.path.parents[1]):
        checkpoint.path.unlink(missing_ok=True)


def _is_finished(run: Path) -> bool:
    return recorded(run)["status"] == "finished" and not held(run)


def _starts_from(run: Path) -> list[Path]:
    try:
        return places(Run.open(run).config)
    except UsageError:  # it cannot be read, and starts from nothing
        return []
