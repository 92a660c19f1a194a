"""How runs stand, wherever they are: what each says of itself, and what Slurm says of its job."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.launcher.slurm.queue import Standing, log_of, standings
from research.runs.status import status_of

LOOK_SECONDS = 5.0  # between two looks at the queue
LONGEST_REASON = 70  # characters of it in a table; the run has all


def told(runs: Iterable[Path], known: Mapping[Path, Standing] | None = None) -> dict[Path, str]:
    """A few words on each of ``runs``: where it waits or runs, or why it does not.

    ``known`` is what Slurm says, where it was asked before.
    """
    said = {run: status_of(run) for run in runs}
    if known is None:
        known = standings(run for run, status in said.items() if status["status"] != "finished")
    return {run: words_of(status, known.get(run), log_of(run)) for run, status in said.items()}


def words_of(status: Mapping[str, Any], standing: Standing | None, log: str = "") -> str:
    """``status`` as a run says it, put right by the ``standing`` of its job, which printed into ``log``."""
    own = status["status"]
    if standing and standing.active and own != "finished":
        return str(standing)
    if own == "failed":
        lines = str(status.get("message", "")).strip().splitlines()
        reason = lines[0] if lines else "no reason given"
        return f"failed: {reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + '…'}"
    if standing is None or own == "finished" or standing.ended_in_order:
        return own
    return f"{'interrupted' if standing.state == 'CANCELLED' else 'failed'}: {standing}{f'; see {log}' if log else ''}"


def follow(runs: Sequence[Path]) -> list[Path]:
    """Print every change of how ``runs`` stand until none is in a queue or runs in it; those that did not finish."""
    before: dict[Path, str] = {}
    while True:
        known = standings(runs)
        now = told(runs, known)
        for run, words in now.items():
            if before.get(run) != words:
                print(f"{time.strftime('%H:%M:%S')}  {run.name}  {words}", flush=True)
        before = now
        if not any(standing.active for standing in known.values()):
            return [run for run in runs if status_of(run)["status"] != "finished"]
        time.sleep(LOOK_SECONDS)
