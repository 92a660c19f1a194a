"""Each arm of a study at its own best value of a parameter, chosen on training images that are held out for it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from research.config import Config
from research.config.merging import overlaid
from research.config.plugins import find_plugins
from research.errors import Failure, UsageError
from research.plugins.scope import plugged
from research.runs.status import DIVERGED
from research.studies.design import SELECT, Select
from research.studies.study import Point, Study, expand, word


class Trial(NamedTuple):
    """A run that tries a value for an arm."""

    arm: str
    over: str
    value: Any
    point: Point

    @property
    def top1(self) -> float | None:
        """Percent right of the images held out, after the last epoch; -inf if it diverged, none before it ended."""
        said = self.point.status
        if said["status"] == "finished":
            return said["last_top1"]
        return -math.inf if said["status"] == "failed" and DIVERGED in said.get("message", "") else None


def trials(study: Study) -> list[Trial]:
    """The runs that choose, each arm with each value; none for a study that chooses nothing.

    Raises:
        UsageError: every problem of any of them, such as a parameter that an arm sets itself.
    """
    if not study.select:
        return []
    select, names = Select(**study.select), Config.parameters()
    with plugged(find_plugins([study.base], names)[0]):
        base = overlaid(study.base, {"data_args.holdout": select.holdout}, names)
    trying = replace(
        study,
        name=f"{SELECT}-{study.name}",
        base=base,
        grid={**study.grid, select.over: list(select.values)},
        seeds=select.seeds,
        contrasts=(),
    )
    ends = {f"-{word(select.over, value)}": value for value in select.values}
    found = []
    for point in expand(trying):
        end = next(end for end in ends if f"-{point.arm}".endswith(end))
        found.append(Trial(f"-{point.arm}".removesuffix(end).removeprefix("-"), select.over, ends[end], point))
    return found


def untold(tried: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Parameters for every arm of ``tried`` while nothing is chosen: the first value that is tried for it."""
    over = tried[0].over if tried else ""
    return {trial.arm: {over: trial.value} for trial in reversed(tried)}


def choice(study: Study, tried: Sequence[Trial], arms: Collection[str]) -> dict[str, dict[str, Any]]:
    """What each of ``arms`` runs with, as parameters: the value of the highest mean over seeds, the first of equals.

    Tells of each what it is, where it is the smallest or largest tried, and where several are equal.

    Raises:
        Failure: a run that chooses has not ended, or every one of an arm diverged; a line for each arm.
    """
    over, chosen, problems = study.select["over"], {}, []
    for arm in arms:
        name, scores = arm or study.name, means([trial for trial in tried if trial.arm == arm])
        if lacking := [value for value, top1 in scores.items() if top1 is None]:
            problems.append(f"{name}: no choice yet: {over} of {lacking} has not ended well")
        elif max(scores.values()) == -math.inf:
            problems.append(f"{name}: diverged with every {over} of {list(scores)}; add others to select.values")
        else:
            best = max(scores, key=scores.get)
            chosen[arm] = {over: best}
            print(f"{name}: {over}={best} of {list(scores)}, {', '.join(_remarks(best, scores))}")
    if problems:
        raise Failure("\n".join(problems))
    return chosen


def refuse_held_out(points: Sequence[Point]) -> None:
    """Raise UsageError where runs that are to be tested hold images out themselves."""
    if held := [point for point in points if point.config.data_args.get("holdout")]:
        count = held[0].config.data_args["holdout"]
        raise UsageError(f"data_args.holdout={count}: select.on holds images out for the choice; leave it out")


def refuse_other_values(points: Sequence[Point]) -> None:
    """Raise UsageError where a run of ``points`` was made with another value than is chosen now."""
    from research.runs.run import Run  # torch takes seconds

    problems = []
    for point in points:
        try:
            Run(point.dir, point.config).refuse_another()
        except UsageError as error:
            problems.append(f"{error}, or the study another one: a choice is made before the test set is seen")
    if problems:
        raise UsageError("\n".join(problems))


def means(tried: Sequence[Trial]) -> dict[Any, float | None]:
    """The mean over seeds of each value that was tried for an arm; none where a run has not ended."""
    by_value: dict[Any, list[float | None]] = {}
    for trial in tried:
        by_value.setdefault(trial.value, []).append(trial.top1)
    return {value: None if None in found else statistics.fmean(found) for value, found in by_value.items()}


def _remarks(best: Any, scores: Mapping[Any, float]) -> Iterator[str]:
    yield f"{scores[best]:.2f} % of the images held out"
    if equal := [value for value, top1 in scores.items() if top1 == scores[best] and value != best]:
        yield f"as good as {equal}, which stand behind it"
    if all(isinstance(value, (int, float)) for value in scores) and best in (min(scores), max(scores)):
        side = "smallest" if best == min(scores) else "largest"
        yield f"the {side} of all: a better one may lie beyond, add it to select.values"
