"""What studies said before they ran, beside their runs: the file ``.studies/NAME.json`` of the folder of runs.

Whenever a study starts and says something that it did not say the last time, that is added: its text, what follows from
it, and the arms that had begun by then. So what was chosen before can be told from what was chosen after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from research.files import read_json, write_atomic

FOLDER = ".studies"
NOT_SAID = ("time", "begun")  # when it was said, not what


@dataclass(frozen=True)
class Plan:
    """What a study has said so far."""

    study: str
    said: tuple[Mapping[str, Any], ...]  # oldest first, never empty; the keys of :func:`record`, time and begun

    @property
    def arms(self) -> dict[str, str]:
        """The arm of every run that was ever part of the study's first result, by the run's name."""
        return {run: arm for each in self.said for run, arm in each["arms"].items()}

    @property
    def confirming(self) -> dict[str, str]:
        """The arm of every run that confirms, by the run's name; empty while none was asked for."""
        return self.confirmation["confirming"] if self.confirmation else {}

    @property
    def confirmation(self) -> Mapping[str, Any] | None:
        """What the study said when it was first asked to confirm."""
        return next((each for each in self.said if each["confirming"]), None)

    @property
    def contrasts(self) -> dict[tuple[str, str], bool]:
        """Every contrast that was ever named, with whether this was before a run of either arm began."""
        found: dict[tuple[str, str], bool] = {}
        for each in self.said:
            for arm, against in each["contrasts"]:
                found.setdefault((arm, against), not {arm, against} & set(each["begun"]))
        return found

    @property
    def trying(self) -> dict[str, tuple[str, Any]]:
        """Arm and value of every run that was made to choose a value, by the run's name."""
        return {run: (arm, value) for each in self.said for run, (arm, value) in each.get("trying", {}).items()}

    @property
    def select(self) -> Mapping[str, Any]:
        """How each arm got its own value of a parameter, as last said; empty where none was chosen."""
        return self.said[-1].get("select", {})

    @property
    def margin(self) -> float | None:
        """Points of top-1 below which a difference does not matter, as last said."""
        return self.said[-1]["margin"]


def record(folder: Path, study: str, said: Mapping[str, Any], begun: Collection[str]) -> None:
    """Add to the plan of ``study`` in the ``folder`` of runs what it says now, unless it said the same the last time.

    ``said`` has ``text``, ``contrasts``, ``margin``, ``seeds``, ``confirm_seeds`` and ``select``; ``arms`` and
    ``confirming``, the names of runs -> their arm; ``trying``, names -> arm and value that is tried. ``begun`` are the
    arms of which a run has begun.
    """
    path = _path(folder, study)
    path.parent.mkdir(parents=True, exist_ok=True)
    now = json.loads(json.dumps(said))
    with FileLock(path.with_suffix(".lock")):
        before = read_json(path, [])
        if not before or {key: value for key, value in before[-1].items() if key not in NOT_SAID} != now:
            at = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "begun": sorted(begun)}
            write_atomic(path, json.dumps([*before, at | now], indent=1) + "\n")


def read_plan(folder: Path, study: str) -> Plan | None:
    """The plan of ``study`` in the ``folder`` of runs; none where it never started with one."""
    said = read_json(_path(folder, study), [])
    return Plan(study, tuple(said)) if said else None


def read_plans(folder: Path) -> list[Plan]:
    """Every plan in the ``folder`` of runs."""
    found = (read_plan(folder, path.stem) for path in sorted((folder / FOLDER).glob("*.json")))
    return [plan for plan in found if plan]


def _path(folder: Path, study: str) -> Path:
    return folder / FOLDER / f"{study}.json"
