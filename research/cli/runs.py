"""``research runs`` and ``research stop``: the status of runs, and their end before they are finished."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from research.cli.commands import Commands
from research.cli.text import blank_if_nan, clock, print_table
from research.errors import UsageError, nearest


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    runs = commands.add("runs", show_runs, "list runs: status, epoch, best top-1, time, hooks")
    runs.add_argument("folder", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")
    stop = commands.add("stop", stop_what_is_named, "stop runs: a checkpoint is written, the same command continues")
    stop.add_argument("what", nargs="+", help="name of a run, its folder, a pattern of them, or the file of a study")
    stop.add_argument("--runs", default="runs", help="folder of runs (default: runs)")


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


def stop_what_is_named(options: argparse.Namespace) -> None:
    from research.launcher.stop import stop_runs, sweeping
    from research.studies.stages import everything

    found: dict[Path, None] = {}
    for what in options.what:
        if Path(what).is_file():
            points = everything(what)
            for process in sweeping(Path(what)):  # before its runs, or it would start the next ones
                print(f"{what}: asked to stop (process {process.pid})")
                process.terminate()
            found |= dict.fromkeys(point.dir for point in points)
        else:
            found |= dict.fromkeys(runs_called(what, Path(options.runs)))
    print_table((), [(run.name, said) for run, said in stop_runs(list(found)).items()])


def runs_called(what: str, folder: Path) -> list[Path]:
    """The folders of runs, those too that only wait in a queue, which ``what`` names: a name, a path or a pattern.

    Raises:
        UsageError: there is none.
    """
    from research.launcher.slurm.queue import queued_in

    place, name = (Path(what).parent, Path(what).name) if "/" in what else (folder, what)
    there = {path.parent.resolve() for path in place.glob("*/config.json")} | set(queued_in(place))
    if not (found := sorted(run for run in there if fnmatch(run.name, name))):
        raise UsageError(f"no run in {place} is called {name!r}{nearest(name, {run.name for run in there})}")
    return found
