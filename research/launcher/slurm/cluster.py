"""Slurm's programs on this machine, and what its partitions can give a job."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from research.config import Config
from research.errors import UsageError, nearest
from research.launcher.slurm.options import DAY, Options, completed, gpus_of, minutes


class Partition(NamedTuple):
    """One row of ``sinfo``: nodes of a partition that are alike."""

    name: str
    minutes: int | None  # most a job may take; none without a limit
    nodes: int
    cores: int
    gpus: int


def partitions() -> tuple[list[Partition], str]:
    """The partitions of this cluster, and the name of its default one.

    Raises:
        UsageError: there is no Slurm here, or it does not answer.
    """
    rows = ask("sinfo", "--noheader", "--format=%P|%l|%D|%c|%G")
    found, default = [], ""
    for row in rows:
        name, limit, nodes, cores, gres = row.split("|")
        default = name.rstrip("*") if name.endswith("*") else default
        gpus = sum(int(n) for n in re.findall(r"gpu(?::[^:,(]+)?:(\d+)", gres))
        found.append(Partition(name.rstrip("*"), minutes(limit), int(nodes), int(cores.rstrip("+")), gpus))
    return found, default


def ask(program: str, *words: str) -> list[str]:
    """The lines that one of Slurm's programs answers.

    Raises:
        UsageError: it is not here, or it refuses.
    """
    if not shutil.which(program):
        raise UsageError(f"no {program} here; give --on slurm on a machine that has Slurm's commands")
    done = subprocess.run([program, *words], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    if done.returncode:
        raise UsageError(refusal(done.stderr) or f"{program} ended with {done.returncode}")
    return done.stdout.splitlines()


def refusal(said: str) -> str:
    """The line in which one of Slurm's programs says why it refuses, else its last one."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line.partition("rror: ")[2] or line for line in lines if "rror" in line]
    return (errors or lines or [""])[-1].strip()


def refuse_impossible(options: Options, configs: Sequence[Config]) -> Options:
    """``options`` with a time that the partition allows; UsageError for what no node of it can give."""
    if importlib.util.find_spec("submitit") is None:
        raise UsageError("--on slurm needs submitit; pip install 'research[slurm]'")
    known, default = partitions()
    name = options.partition or default
    rows = [row for row in known if row.name == name]
    if not rows:
        raise UsageError(f"partition={name!r}: unknown here{nearest(name, {row.name for row in known})}")
    problems = []
    asked = completed(options, configs)
    for word, most in (("gpus", max(row.gpus for row in rows)), ("cpus", max(row.cores for row in rows))):
        if asked[word] > most:
            problems.append(f"{word}={asked[word]}: a node of partition {name} has {most}")
    if options.nodes > (there := sum(row.nodes for row in rows)):
        problems.append(f"nodes={options.nodes}: partition {name} has {there}")
    limit = max(row.minutes or math.inf for row in rows)
    if options.time and options.minutes > limit:
        problems.append(f"time={options.time}: partition {name} allows {limit} minutes; runs go on in a next turn")
    if options.nodes > 1 and options.pack > 1:
        problems.append(f"pack={options.pack}: a run on nodes={options.nodes} has its job for itself")
    short = [config.processes for config in configs if gpus_of(config) > asked["gpus"]]
    if short:
        problems.append(f"gpus={asked['gpus']}: these runs have {max(short)} processes, one a GPU")
    if problems:
        raise UsageError("\n".join(problems))
    return options if options.time else replace(options, time=str(int(min(DAY, limit))))
