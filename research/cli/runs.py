"""``research runs``: the status of runs."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.cli.text import blank_if_nan, clock, print_table


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    runs = commands.add("runs", show_runs, "list runs: status, epoch, best top-1, time, hooks")
    runs.add_argument("folder", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")


def show_runs(options: argparse.Namespace) -> None:
    from research.frames import read_runs

    runs, unreadable = read_runs(options.folder)
    print_table(("run", "status", "epoch", "best top-1 %", "time", "hooks"), [
        (r.name, r.status, r.epoch, blank_if_nan(r.best_top1, "{:.2f}".format), blank_if_nan(r.seconds, clock), r.hooks)
        for r in runs.itertuples()
    ] + [(directory.name, "unreadable", "", "", "", "") for directory in unreadable])  # fmt: skip
    for directory, problem in unreadable.items():
        print(f"unreadable: {directory}: {problem}")
