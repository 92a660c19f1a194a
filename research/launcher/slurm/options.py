"""What a job asks of Slurm: by the site's file, the study, and the command line, checked before it is queued."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from research.config import Config
from research.errors import UsageError
from research.parameters import yaml_1_2
from research.parameters.signatures import Range, check_arguments

SITE_FILES = (Path("slurm.yaml"), Path("~/.config/research/slurm.yaml"))  # the first that is there
DAY = 24 * 60  # minutes: the time of a job when nobody gives one
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")  # as sbatch --time reads it


@dataclass(frozen=True)
class Options:
    """What may stand in a site's file, in the block ``slurm:`` of a study and, but for the last three, as options."""

    partition: Annotated[str, "of the cluster; empty = its default"] = ""
    account: Annotated[str, "that pays"] = ""
    qos: Annotated[str, "quality of service"] = ""
    constraint: Annotated[str, "features that a node must have"] = ""
    time: Annotated[str, "limit of a job, as sbatch reads it: minutes, hours:minutes:seconds or days-hours"] = ""
    nodes: Annotated[int, Range(least=1), "machines of one run"] = 1
    gpus: Annotated[int | None, Range(least=0), "a node; none = one a process of runs with gpus= or device=cuda"] = None
    cpus: Annotated[int, Range(least=0), "cores a node; 0 = one a process"] = 0
    memory: Annotated[str, "a node, such as 64G; empty = what the site gives"] = ""
    pack: Annotated[int, Range(least=1), "runs that share a job, all at once on its node"] = 1
    array_parallelism: Annotated[int, Range(least=0), "jobs at a time; 0 = as many as the cluster starts"] = 0
    notice: Annotated[int, Range(least=1), "seconds before the time limit at which a job writes checkpoints"] = 120
    setup: Annotated[tuple[str, ...], "shell lines before a job, such as 'module load cuda'"] = ()
    python: Annotated[str, "command in the place of this Python, such as that of a container"] = ""
    sbatch: Annotated[Mapping, "further options of sbatch by their long names"] = field(default_factory=dict)

    @property
    def minutes(self) -> int:
        """``time`` in minutes, rounded up."""
        return minutes(self.time) or DAY


IN_FILES_ONLY = ("setup", "python", "sbatch")


def read_options(study: Mapping[str, Any], typed: Mapping[str, Any]) -> Options:
    """The options of the site's file, then of the block ``slurm:`` of a ``study``, then as ``typed``; later ones win.

    Raises:
        UsageError: with one line for every problem.
    """
    site = next((path.expanduser() for path in SITE_FILES if path.expanduser().is_file()), None)
    given = yaml_1_2.read(site) if site else {}
    if not isinstance(given, Mapping):
        raise UsageError(f"{site}: expected a mapping with partition, time, gpus …")
    values, problems = {}, []
    for where, source in ((f"{site}: ", given), ("slurm.", study), ("--", typed)):
        named = {str(name).replace("-", "_"): value for name, value in source.items()}
        checked, wrong = check_arguments("", Options, named)
        if "time" in named and not wrong and not minutes(checked["time"]):
            wrong.append(f"time={named['time']!r}: expected minutes, hours:minutes:seconds or days-hours")
        problems += [where + problem for problem in wrong]
        values |= {name: checked[name] for name in named if name in checked}
    options = Options(**values) if not problems else None
    if options and options.time and 60 * options.minutes <= options.notice:
        problems.append(f"notice={options.notice}: time={options.time} leaves a job no time before it")
    if problems:
        raise UsageError("\n".join(problems))
    return options


def minutes(time: str) -> int | None:
    """A time limit in Slurm's notation as whole minutes, rounded up; none where it is no such limit."""
    if not (found := TIME.fullmatch(time)):
        return None
    days, numbers = int(found["days"] or 0), [int(number) for number in found["clock"].split(":")]
    if found["days"]:
        hours, minute, second = (*numbers, 0, 0)[:3]
    else:
        hours, minute, second = {1: (0, *numbers, 0), 2: (0, *numbers), 3: numbers}[len(numbers)]
    return math.ceil((days * 24 + hours) * 60 + minute + second / 60) or None


def gpus_of(config: Config) -> int:
    """GPUs a node that a run is certain to use."""
    return config.processes if config.device == "cuda" else 0


def completed(options: Options, configs: Sequence[Config]) -> dict[str, Any]:
    """What a job with runs of ``configs``, all alike, asks for a node: its GPUs and cores."""
    processes = options.pack * max(config.processes for config in configs)
    gpus = options.gpus if options.gpus is not None else options.pack * max(map(gpus_of, configs))
    return {"gpus": gpus, "cpus": options.cpus or processes}
