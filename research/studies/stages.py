"""What of a study is to run now, and what after that: the choice of each arm's own value, then the runs at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from research.errors import UsageError, nearest
from research.studies.plan import confirmation, confirming, write_down
from research.studies.selection import choice, refuse_held_out, refuse_other_values, trials, untold
from research.studies.study import Point, Study, expand, read_study


@dataclass(frozen=True)
class Stage:
    """Points that can run at once."""

    study: Study
    points: list[Point]
    first: list[Point]  # all points of the study's own seeds
    begin: Callable[[], None]  # keeps the study with its runs; to be called before the first one starts
    then: list[Point]  # what runs after these, where these choose a value for it

    @property
    def chooses(self) -> bool:
        return bool(self.then)


def stages(path: str | Path, only: str = "", confirm: bool = False, ahead: bool = False) -> Iterator[Stage]:
    """The stages of the study in ``path``: most have one. A stage is worked out once the one before it has been run.

    ``only`` is a pattern of names, ``confirm`` as in :func:`research.studies.sweep.sweep`. ``ahead`` does not wait for
    the choice: each arm then has the first value that will be tried.

    Raises:
        UsageError: every problem of the file and of any of its runs; a choice that other runs were not made with.
        Failure: the runs that choose have not ended.
    """
    study = read_study(path)
    tried = trials(study)
    first = expand(study, untold(tried))
    if tried:
        refuse_held_out(first)
    fresh = confirmation(study, first, untold(tried)) if confirm else []
    points = chosen(fresh or first, only)
    arms = list(dict.fromkeys(point.arm for point in points))
    mine = [trial for trial in tried if trial.arm in arms]
    begin = partial(write_down, path, study, first, fresh, tried)
    open_trials = [trial.point for trial in mine if trial.top1 is None]
    if open_trials:
        print(f"first {study.select['over']} is chosen for each of {len(arms)} arms, on images that are held out")
        yield Stage(study, open_trials, first, begin, points)
    if mine and not (open_trials and ahead):
        own = choice(study, mine, arms)
        first = expand(study, untold(tried) | own)
        points = chosen(confirming(study, own) if confirm else first, only)
        refuse_other_values(points)
    elif mine:
        print(f"then the runs at what was chosen, shown with the first {study.select['over']} that is tried")
    if confirm:
        print(f"confirming {len(study.contrasts)} contrasts on fresh seeds, once: {list(study.confirm_seeds)}")
    yield Stage(study, points, first, begin, [])


def chosen(points: list[Point], only: str) -> list[Point]:
    """The points whose names match the pattern ``only``; all without one."""
    found = [point for point in points if fnmatchcase(point.dir.name, only or "*")]
    if not found:
        raise UsageError(f"--only {only!r}: no run is called so{nearest(only, [point.dir.name for point in points])}")
    return found


def everything(path: str | Path) -> list[Point]:
    """Every point of the study in ``path``: those that choose, its own, and those that confirm; values not chosen yet.

    Raises:
        UsageError: every problem of the file and of any of its runs.
    """
    study = read_study(path)
    tried = trials(study)
    own = untold(tried)
    return [*(trial.point for trial in tried), *expand(study, own), *confirming(study, own)]
