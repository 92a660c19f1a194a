"""``research runs``, ``table``, ``compare`` and ``stop``: how far runs came, what they reached, and their early end."""

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
    table = commands.add("table", print_paper_table, "print results over seeds as a table for a paper")
    table.add_argument("what", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")
    table.add_argument("--rows", nargs="+", default=(), metavar="PARAMETER", help="default: what tells runs apart")
    table.add_argument("--columns", nargs="+", default=("top1_err",), metavar="NAME", help="results and parameters")
    table.add_argument("--baseline", default="", metavar="ROW", help="name of the row that others are tested against")
    table.add_argument("--published", default="", metavar="TABLE", help="such as power-grad-imagenet: values beside")
    form = table.add_mutually_exclusive_group()
    form.add_argument("--latex", dest="form", action="store_const", const="latex", help="LaTeX, with booktabs")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="CSV, a line a cell")
    table.set_defaults(form="markdown")
    two = commands.add("compare", print_comparison, "compare two configurations: parameters, curves, results")
    for side in ("a", "b"):
        two.add_argument(side, metavar=side.upper(), help="a run, or a pattern of runs that differ in their seed")
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


def print_paper_table(options: argparse.Namespace) -> None:
    from research.frames import load_runs
    from research.frames.reports import paper_table

    choices = {"rows": options.rows, "columns": options.columns}
    table = paper_table(load_runs(options.what), **choices, baseline=options.baseline, published=options.published)
    print(getattr(table, options.form)().rstrip("\n"))


def print_comparison(options: argparse.Namespace) -> None:
    from research.frames import load_runs
    from research.frames.reports import side_by_side
    from research.frames.tables import markdown

    sides = (load_runs(what if "/" in what else f"runs/{what}") for what in (options.a, options.b))
    print("\n\n".join(f"{title}\n\n{markdown(table)}" for title, table in side_by_side(*sides).items()))


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
