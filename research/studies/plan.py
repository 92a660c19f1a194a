"""What a study is made to compare: written down before it runs, and confirmed once on fresh seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from research.errors import UsageError
from research.plugins.source import freeze
from research.runs.plans import read_plan, record
from research.studies.design import CONFIRM
from research.studies.selection import Trial
from research.studies.study import Point, Study, expand, find_study

ENDED = ("finished", "failed")


def confirming(study: Study, own: Mapping[str, Mapping[str, Any]] | None = None) -> list[Point]:
    """The points that confirm: the arms of the contrasts, and what they start from, on fresh seeds; none without such.

    ``own`` as in :func:`research.studies.study.expand`.
    """
    if not study.confirm_seeds:
        return []
    fresh = replace(study, name=f"{CONFIRM}-{study.name}", seeds=study.confirm_seeds)
    needed = {arm for pair in study.contrasts for arm in pair}
    points = expand(fresh, own)
    arms = {point.dir.name: point.arm for point in points}
    while more := {arms[name] for point in points if point.arm in needed for name in starts(point, arms)} - needed:
        needed |= more
    return [point for point in points if point.arm in needed]


def starts(point: Point, runs: Collection[str]) -> set[str]:
    """Those of the ``runs`` that ``point`` or a method of it starts from, by name."""
    given = [{"init": point.config.init, "from": point.config.continue_from}, *point.config.hooks.values()]
    values = [value for each in given for value in each.values() if isinstance(value, str)]
    return {value.replace("{seed}", str(point.config.seed)) for value in values} & set(runs)


def confirmation(
    study: Study, points: Sequence[Point], own: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Point]:
    """The points of :func:`confirming`, once the study's own ``points`` have given a result to confirm.

    Raises:
        UsageError: there are no fresh seeds, runs of the first result have not ended, or it was confirmed already, on
            other seeds or of other contrasts.
    """
    if not (fresh := confirming(study, own)):
        raise UsageError("--confirm: the study names no fresh seeds; give it confirm_seeds")
    arms = {point.arm for point in fresh}
    left = [point for point in points if point.arm in arms and point.status["status"] not in ENDED]
    if left:
        raise UsageError(
            f"--confirm: {len(left)} runs of the first result have not ended, such as {left[0].dir.name}; "
            "leave --confirm out until they have"
        )
    plan = read_plan(fresh[0].dir.parent, study.name)
    if plan and (before := plan.confirmation):
        seeds, day = before["confirm_seeds"], before["time"][:10]
        more = [list(pair) for pair in study.contrasts if list(pair) not in before["contrasts"]]
        if set(seeds) != set(study.confirm_seeds) or more:
            what = f"contrasts {more}" if more else f"confirm_seeds={list(study.confirm_seeds)}"
            raise UsageError(
                f"--confirm: {what}: {study.name} was confirmed on {day}, on seeds {seeds}, and a result is confirmed "
                "once; a study of another name can ask again"
            )
    return fresh


def write_down(
    path: str | Path, study: Study, points: Sequence[Point], fresh: Sequence[Point] = (), tried: Sequence[Trial] = ()
) -> None:
    """Keep with the runs what the study in ``path`` is made to compare, and the plugins that they will load.

    ``fresh`` are the points that confirm it, and ``tried`` those that choose a value for each arm.
    """
    for point in (*points, *fresh, *(trial.point for trial in tried)):
        freeze(point.config.plugin, point.dir.parent)
    for folder in {point.dir.parent for point in points}:
        mine = [point for point in points if point.dir.parent == folder]
        said = {
            "text": find_study(path).read_text(),
            "contrasts": study.contrasts,
            "margin": study.margin,
            "seeds": study.seeds,
            "confirm_seeds": study.confirm_seeds,
            "arms": {point.dir.name: point.arm for point in mine},
            "confirming": {point.dir.name: point.arm for point in fresh if point.dir.parent == folder},
            "select": {**study.select},
            "trying": {t.point.dir.name: [t.arm, t.value] for t in tried if t.point.dir.parent == folder},
        }
        begun = {point.arm for point in mine if point.status["status"] not in ("new", "created")}
        record(folder, study.name, said, begun)
