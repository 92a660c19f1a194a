"""Studies: a YAML file as a list of checked runs.

An example::

    name: gram-k-small                    # first word of every run's name
    notebook: train                       # the default
    base: {dataset: digits}               # parameters of every run
    runs: [{gram: false}, {gram: true}]   # alternatives; each goes through the whole grid
                                          # or a mapping: {plain: {}, gram: {gram: true}} names them
    grid: {lr: [0.1, 0.05]}               # every combination
    seeds: [0, 1, 2]                      # the grid's last dimension
                                          # "arm:NAME" as a value is the run of that arm with the same seed
    contrasts: [[gram-lr-0.1, no-gram-lr-0.1]]    # what it is made to compare: arms, the names of runs without the seed
    select: {over: lr, values: [0.03, 0.1, 0.3], on: {holdout: 5000}}    # each arm at its own best value
    margin: 0.3                           # points of top-1 below which a difference does not matter
    confirm_seeds: [100, 101, 102]        # fresh ones, with --confirm
    together: true                        # train all runs in one process, dense MLPs of one shape at once
    ldi: [exact]                          # and measure the LDI of each before
    slurm: {partition: gpu, time: 8:00:00}    # with --on slurm: what a job asks for
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from research.config import Config
from research.config.merging import doubled, overlaid
from research.config.plugins import find_plugins
from research.errors import UsageError, nearest
from research.notebooks.workbench import SHIPPED
from research.parameters import yaml_1_2
from research.parameters.signatures import Range, check_arguments
from research.plugins.scope import plugged
from research.plugins.source import frozen
from research.runs.paths import home_of
from research.runs.status import recorded, status_of
from research.studies.design import arm_of, problems_of_design, unknown_arms

NAME = r"[A-Za-z0-9][\w.+-]*"  # of a study and its alternatives: they make the names of folders


@dataclass(frozen=True)
class Study:
    """What the YAML file may hold."""

    name: Annotated[str, "first word of every run's name"]
    notebook: Annotated[str, "what each run executes"] = "train"
    base: Annotated[Mapping, "parameters of every run"] = field(default_factory=dict)
    runs: Annotated[tuple[Mapping, ...] | Mapping, "alternatives, or name -> alternative, through the grid"] = ({},)
    grid: Annotated[Mapping, "parameter -> list of values, every combination"] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], "the grid's last dimension"] = ()
    select: Annotated[Mapping, "each arm at its best value of a parameter, see research.studies.design.Select"] = field(
        default_factory=dict
    )
    contrasts: Annotated[tuple[tuple[str, str], ...], "[arm, against] that it is made to compare"] = ()
    margin: Annotated[float | None, Range(above=0), "points of top-1 below which a difference does not matter"] = None
    sd: Annotated[float | None, Range(above=0), "deviation of paired differences to expect, before a run"] = None
    confirm_seeds: Annotated[tuple[int, ...], "fresh ones, on which the contrasts are confirmed once"] = ()
    together: Annotated[bool, "train all runs in one process, dense MLPs of one shape at once, no notebooks"] = False
    ldi: Annotated[tuple[Literal["exact", "reference", "post"], ...], "with together: measured of each before"] = ()
    slurm: Annotated[Mapping, "what its jobs ask of Slurm, see research.launcher.slurm.options"] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Point:
    """One run of a study: what varies, everything given, and the Config that makes."""

    varied: Mapping[str, Any]
    parameters: Mapping[str, Any]
    config: Config
    arm: str = ""  # its name without the study's and the seed: what is compared

    @property
    def dir(self) -> Path:
        return home_of(self.config)

    @property
    def status(self) -> dict[str, Any]:
        """How far the run is and how it ended, see :func:`research.runs.status.status_of`."""
        return status_of(self.dir)

    @property
    def epochs_left(self) -> int:
        """Epochs that the run has not trained yet, as it says itself."""
        return self.config.total_epochs - recorded(self.dir).get("epoch", 0)

    @property
    def words(self) -> tuple[str, ...]:
        """What is given, as one types it behind the name of a notebook; plugins as they are when the study begins."""
        plugins = [str(path) for path in frozen(self.config.plugin, self.dir.parent)]
        given = {**self.parameters, "plugin": plugins} if plugins else self.parameters
        return tuple(f"{key}={yaml_1_2.typed(value)}" for key, value in given.items())

    @property
    def log(self) -> Path:
        """What executing this point printed."""
        return self.dir.parent / ".sweep" / f"{self.dir.name}.log"


def find_study(study: str | Path) -> Path:
    """The file of a study: a path here or in the project, or a name under ``notebooks/studies`` of either.

    Raises:
        UsageError: there is none; with what there is, and where was looked.
    """
    homes = [Path(), SHIPPED.parent]
    folders = [home / "notebooks" / "studies" for home in homes]
    for folder in [*homes, *folders]:
        for candidate in (folder / study, folder / f"{study}.yaml"):
            if os.path.isfile(candidate):
                return candidate
    if os.path.lexists(study):
        return Path(study)  # reading says what is wrong with it
    known = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    places = " nor in ".join(dict.fromkeys(str(folder.resolve()) for folder in [*homes, *folders] if folder.is_dir()))
    name = Path(study).name.removesuffix(".yaml")
    raise UsageError(f"no study {str(study)!r} in {places}{nearest(name, known)}")


def read_study(study: str | Path) -> Study:
    """The study in a file that :func:`find_study` finds.

    Raises:
        UsageError: every problem of the file itself; those of its runs are found when it is expanded.
    """
    path = find_study(study)
    try:
        given = yaml_1_2.read(path)
    except UsageError as error:
        raise UsageError(f"study {path}: {error}") from None
    if not isinstance(given, Mapping):
        raise UsageError(f"study {path}: expected a mapping with name, base, grid …")
    if isinstance(given.get("runs"), Mapping):  # a number names a run as it was written
        written = {str(key) if isinstance(key, (int, float)) else key: runs for key, runs in given["runs"].items()}
        given = {**given, "runs": written}
    values, problems = check_arguments("", Study, given)
    if not problems:
        study = Study(**values)
        if not re.fullmatch(NAME, study.name):
            problems.append(f"name={study.name!r}: letters, digits and .+-_ make the runs' folders")
        if isinstance(study.runs, Mapping):
            for name, alternative in study.runs.items():
                if not re.fullmatch(NAME, str(name)) or name is None or not isinstance(alternative, Mapping):
                    problems.append(f"runs.{name}={alternative!r}: expected a name for folders, and a mapping")
        for where, parameters in _maps(study):
            for key in parameters if isinstance(parameters, Mapping) else ():
                if not isinstance(key, str):
                    problems.append(f"{where}: {key!r}: expected the name of a parameter")
        for key, choices in study.grid.items():
            if not isinstance(choices, list) or not choices:
                problems.append(f"grid.{key}={choices!r}: expected a list of values")
        if study.ldi and not study.together:
            problems.append(f"ldi={list(study.ldi)}: needs together=true")
        problems += problems_of_design(study)
    if problems:
        raise UsageError("\n".join(f"study {path}: {problem}" for problem in problems))
    return study


def _maps(study: Study) -> Iterator[tuple[str, Mapping]]:
    """Every map of parameters in ``study``, with where it stands."""
    yield "base", study.base
    yield "grid", study.grid
    named = study.runs.items() if isinstance(study.runs, Mapping) else enumerate(study.runs, start=1)
    yield from ((f"runs.{name}", alternative) for name, alternative in named)


def expand(study: Study, own: Mapping[str, Mapping[str, Any]] | None = None) -> list[Point]:
    """Every point of the study, checked: what varies over the base, which speaks for all.

    ``own`` are parameters of an arm, by its name, which do not tell in it.

    Raises:
        UsageError: every problem of every point; two points that are the same run; a parameter that two of
            alternative, grid and seeds decide; a contrast of what is no arm.
    """
    names = Config.parameters()
    problems, points = [], {}
    seeds = [{"seed": seed} for seed in study.seeds] or [{}]
    combinations = [dict(zip(study.grid, values, strict=True)) for values in itertools.product(*study.grid.values())]
    named = isinstance(study.runs, Mapping)
    alternatives = study.runs.items() if named else [("", alternative) for alternative in study.runs or ({},)]
    for (name, alternative), combination, seed in itertools.product(alternatives, combinations, seeds):
        try:
            with plugged(find_plugins((study.base, alternative, combination), names)[0]):
                twice = doubled((alternative, combination, seed), names)
        except UsageError as error:
            twice = str(error).splitlines()
        if twice:
            problems += twice
            continue
        alternative = {key: _run_of_arm(study, value) for key, value in alternative.items()}
        varied = {**alternative, **combination, **seed}
        words = {**combination, **seed} if named else varied
        for given in (study.base, varied):
            if "name" in given:
                problems.append(f"name={given['name']!r}: the study names its runs; leave it out")
        parts = [study.name, name, *(word(key, value) for key, value in words.items())]
        arm = "-".join(filter(None, parts[1 : len(parts) - len(seed)]))
        varied |= (own or {}).get(arm, {})
        varied_and_named = varied | {"name": "-".join(filter(None, parts))}
        try:
            config = Config.load(study.base, varied_and_named)
        except UsageError as error:
            problems += str(error).splitlines()
            continue
        with plugged(config.plugin):
            point = Point(varied, overlaid(study.base, varied_and_named, names), config, arm)
        if point.dir in points:
            problems.append(f"{point.dir.name}: this run is in the study twice")
        points[point.dir] = point
    if not problems:
        problems += unknown_arms(study, (point.arm for point in points.values()))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return list(points.values())


def _run_of_arm(study: Study, value: Any) -> Any:
    """The run that ``"arm:NAME"`` stands for, with the seed of the run that is given it; other values as they are."""
    seed = "-seed-{seed}" if study.seeds else ""
    return f"{study.name}-{arm}{seed}" if (arm := arm_of(value)) else value


def word(key: str, value: Any) -> str:
    """A parameter as part of a folder's name: it depends on nothing else, so that a study may grow."""
    name = key.replace(".", "-").replace("_", "-")
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    text = value if isinstance(value, str) else json.dumps(value)
    plain = re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-")[:24]
    if plain != text:  # something was lost: keep different values apart
        plain += "-" + hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{name}-{plain}"


def table(points: list[Point], said: Mapping[Path, str] | None = None) -> str:
    """One line a point: the run's name, what varies, what is ``said`` of its folder, and how far it is."""
    lines = []
    for point in points:
        state = point.status
        done = f" {state['epoch']}/{state['epochs']}" if "epochs" in state else ""
        varied = " ".join(f"{key}={json.dumps(value)}" for key, value in point.varied.items())
        lines.append((point.dir.name, varied, (said[point.dir] if said else state["status"]) + done))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
