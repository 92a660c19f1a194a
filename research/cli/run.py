"""``research run`` and ``research train``: one run, as a notebook or without."""

from __future__ import annotations

import argparse

from research.cli.commands import ASSIGNMENTS, Commands
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    run = commands.add("run", run_notebook, "execute a notebook with parameters, through papermill")
    run.add_argument("notebook", help="name under notebooks/, such as train or analysis/curves, or a path")
    run.add_argument("assignments", **ASSIGNMENTS)
    commands.add("train", train, "train without a notebook; the same run").add_argument("assignments", **ASSIGNMENTS)


def run_notebook(options: argparse.Namespace) -> None:
    from research.notebooks.execute import execute
    from research.parameters.assignments import parse_assignments

    print(execute(options.notebook, parse_assignments(options.assignments)))


def train(options: argparse.Namespace) -> None:
    from research.config.config import Config, restated
    from research.launcher.launch import launch
    from research.parameters.assignments import parse_assignments

    given = parse_assignments(options.assignments)
    config = Config.load(given)
    try:
        print(launch(config).dir)
    except UsageError as error:
        raise UsageError(restated(str(error), given)) from error
