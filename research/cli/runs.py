"""``research runs``: the status of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.commands import Commands
from research.cli.text import blank_if_nan, clock, print_table


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    runs = commands.add("runs", show_runs, "list runs: status, epoch, best top-1, time, hooks")
    runs.add_argument("folder", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")


def show_runs(options: argparse.Namespace) -> None:
    from research.launcher.slurm.queue import queued_in
    from research.launcher.standing import told
    from research.runs.summaries import read_summaries

    unbegun = told(queued_in(options.folder))
    if unbegun and not any(Path(options.folder).glob("*/config.json")):
        print_table(("run", "status"), [(run.name, said) for run, said in unbegun.items()])
        return
    runs, unreadable = read_summaries(options.folder)
    said = told(Path(run["dir"]) for run in runs)
    rows = [
        (
            run["name"],
            said[Path(run["dir"])],
            run["epoch"],
            percent(run["best_top1"]),
            blank_if_nan(run["seconds"], clock),
            run["hooks"],
        )
        for run in runs
    ]
    rows += [(directory.name, "unreadable", "", "", "", "") for directory in unreadable]
    rows += [(run.name, words, "", "", "", "") for run, words in unbegun.items()]
    print_table(("run", "status", "epoch", "best top-1 %", "time", "hooks"), rows)
    for directory, problem in unreadable.items():
        print(f"unreadable: {directory}: {problem}")


def percent(number: float) -> str:
    return blank_if_nan(number, "{:.2f}".format)
