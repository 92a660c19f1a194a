"""``research run`` and ``research train``: one run, as a notebook or without."""

from __future__ import annotations

import argparse
from typing import Any

from research.cli.commands import ASSIGNMENTS, Commands, add_cluster_options, typed_options
from research.errors import UsageError

TRAINING = ("research.training.preflight", "research.training.worker")
"""What both who checks a run and who trains it import, torch above all: it takes seconds."""


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    run = commands.add("run", run_notebook, "execute a notebook with parameters, through papermill")
    run.add_argument("notebook", help="name under notebooks/, such as train or analysis/curves, or a path")
    run.add_argument("assignments", **ASSIGNMENTS)
    add_cluster_options(run)
    training = commands.add("train", train, "train without a notebook; the same run")
    training.add_argument("assignments", **ASSIGNMENTS)
    add_cluster_options(training)


def run_notebook(options: argparse.Namespace) -> int:
    from research.launcher.zygote import keep_spare
    from research.notebooks.execute import execute, trained_by, trains
    from research.parameters.assignments import parse_assignments

    typed, given = typed_options(options), parse_assignments(options.assignments)
    html = page_wanted(given, options.notebook)
    if not options.on:
        if trains(options.notebook):
            keep_spare(["research.notebooks.kernel", *TRAINING], spares=2)  # its kernel, and what trains below that
        print(execute(options.notebook, given, html=html))
        return 0
    from research.launcher.slurm.one import run_on_slurm

    if not (config := trained_by(options.notebook, given)):
        raise UsageError(f"--on slurm: notebook {options.notebook} trains no run; leave it out")
    return run_on_slurm(("run", options.notebook, *options.assignments), config, typed, options.wait)


def page_wanted(given: dict[str, Any], notebook: str) -> bool:
    """Take ``html=…`` out of what is given, unless the notebook has a parameter of that name."""
    from research.notebooks.execute import find, read_parameters

    if "html" not in given or "html" in read_parameters(find(notebook)):
        return False
    if not isinstance(html := given.pop("html"), bool):
        raise UsageError(f"html={html!r}: expected true or false")
    return html


def train(options: argparse.Namespace) -> int:
    from research.config.config import Config, restated
    from research.launcher.zygote import keep_spare
    from research.parameters.assignments import parse_assignments

    typed, given = typed_options(options), parse_assignments(options.assignments)
    if not options.on:
        keep_spare(TRAINING)
    from research.launcher.launch import launch  # imports torch, before which threads are not begun

    config = Config.load(given)
    try:
        if options.on:
            from research.launcher.slurm.one import run_on_slurm

            return run_on_slurm(("train", *options.assignments), config, typed, options.wait)
        print(launch(config).dir)
        return 0
    except UsageError as error:
        raise UsageError(restated(str(error), given)) from error
