"""What differences a study could see, told before it runs: from the deviations of earlier runs, or as it says."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.files import read_json
from research.frames.power import seeds_needed, smallest_difference
from research.runs.paths import RunPaths
from research.runs.status import recorded
from research.studies.study import Point, Study

LEAST = 3  # seeds that a deviation is taken from
Results = Mapping[str, Mapping[int, float]]  # what runs compute, but the seed -> seed -> top-1 (%) of the last epoch


def in_sight(study: Study, points: Sequence[Point]) -> str:
    """A line for each contrast: the smallest difference that is seen with a power of 80 %, and seeds for the margin.

    Without contrasts, the line is of any two arms.
    """
    earlier = results_in({point.dir.parent for point in points})
    arms = {point.arm: earlier.get(alike(point.config.to_dict()), {}) for point in points}
    pairs = {f"{arm} - {against}": deviation(arms[arm], arms[against]) for arm, against in study.contrasts}
    if not study.contrasts and len(arms) > 1:
        pairs = {"any two arms, of no contrast": pooled(arms.values())}
    return "\n".join(f"sees  {name}: {_told(study, *found, max(1, len(pairs)))}" for name, found in pairs.items())


def _told(study: Study, sd: float | None, source: str, comparisons: int) -> str:
    sd, source = (sd, source) if sd is not None else (study.sd, "as the study says")
    if sd is None:
        return "unknown, none was run on several seeds; give sd, the deviation of paired differences to expect"
    said = []
    if (n := len(study.seeds)) > 1:
        seen = smallest_difference(sd, n, comparisons=comparisons)
        said.append(f"{seen:.2g} points with {n} seeds (80 % power, {comparisons} compared)")
    if study.margin is not None:
        said.append(f"{study.margin:g} points need {seeds_needed(sd, study.margin, comparisons=comparisons)} seeds")
    return f"{'; '.join(said) or 'nothing with one seed'}; sd of differences {sd:.2g}, {source}"


def alike(parameters: Mapping[str, Any]) -> str:
    """What runs that differ in their seed alone have in common, of a Config as JSON."""
    return json.dumps({k: v for k, v in parameters.items() if k not in NOT_IDENTITY | {"seed"}}, sort_keys=True)


def results_in(folders: Iterable[Path]) -> Results:
    """The results of the finished runs in ``folders``."""
    plain, found = Config().to_dict(), {}
    for folder in folders:
        for config in folder.glob(f"*/{RunPaths('').config.name}"):
            said, given = recorded(config.parent), read_json(config, {})
            if isinstance(given, dict) and said["status"] == "finished" and said.get("last_top1") is not None:
                given = plain | given
                found.setdefault(alike(given), {})[given["seed"]] = said["last_top1"]
    return found


def deviation(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float | None, str]:
    """The standard deviation of the difference by seed, and what it was taken from; none where there are too few."""
    differences = [ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()]
    if len(differences) >= LEAST:
        return statistics.stdev(differences), f"of {len(differences)} pairs"
    if min(len(ours), len(theirs)) < LEAST:
        return None, ""
    spread = math.sqrt(statistics.variance(ours.values()) + statistics.variance(theirs.values()))
    return spread, f"of {len(ours)} and {len(theirs)} runs, not paired"


def pooled(arms: Iterable[Mapping[int, float]]) -> tuple[float | None, str]:
    """The standard deviation of the difference of two runs of different arms, from that of the seeds in each arm."""
    spreads = [statistics.variance(found.values()) for found in arms if len(found) >= LEAST]
    if not spreads:
        return None, ""
    return math.sqrt(2 * statistics.mean(spreads)), f"of the seeds of {len(spreads)} arms, not paired"
