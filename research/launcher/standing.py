"""How runs stand, wherever they are: what each says of itself, and what Slurm says of its job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from research.launcher.slurm.queue import Standing, standings
from research.runs.status import status_of

OVER = ("finished", "failed")  # what a run says of itself for good


def told(runs: Iterable[Path], known: Mapping[Path, Standing] | None = None) -> dict[Path, str]:
    """A few words on each of ``runs``: how far it is, and where it waits or runs, or why it does not.

    ``known`` is what Slurm says, where it was asked before.
    """
    said = {run: status_of(run) for run in runs}
    if known is None:
        known = standings(run for run, status in said.items() if status["status"] != "finished")
    return {run: words_of(status, known.get(run)) for run, status in said.items()}


def words_of(status: Mapping, standing: Standing | None) -> str:
    """``status`` of a run, put right by the ``standing`` of its job."""
    done = f" {status['epoch']}/{status['epochs']}" if "epochs" in status else ""
    own = status["status"]
    if standing is None or own == "finished":
        return own + done
    if standing.active:
        return f"{standing}{done}"
    if own == "failed":
        return f"failed{done}: {first_line(status)}"
    if standing.state == "COMPLETED":  # it was stopped
        return f"{own}{done}"
    return f"{'interrupted' if standing.state == 'CANCELLED' else 'failed'}{done}: {standing}"


def first_line(status: Mapping) -> str:
    return next(iter(str(status.get("message") or "no reason given").strip().splitlines()))
