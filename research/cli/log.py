"""``research log`` and ``research tensorboard``: notes, entries made from runs, and event files of them."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    log = commands.add("log", write_log, "append to the research log: a note, or an entry made from runs")
    log.add_argument("words", nargs="+", metavar="TEXT | runs=PATTERN", help="a note; or the runs to write an entry of")
    log.add_argument("--title", default="", help="heading of the entry (default: Notes; of runs: what they are)")
    log.add_argument("--note", default="", help="first sentence of an entry made from runs: what they are for")
    log.add_argument("--update", action="store_true", help="put the text as an update under the entry called TITLE")
    log.add_argument("--figure", action="append", default=[], metavar="FILE", help="an image for the entry; repeatable")
    log.add_argument("--path", default="research-log.md", metavar="FILE", help="the log (default: research-log.md)")
    board = commands.add("tensorboard", write_event_files, "write event files of runs, or bring them up to date")
    board.add_argument("runs", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")
    board.add_argument(
        "--out", default="", metavar="FOLDER", help="a folder a run goes in it (default: runs/tensorboard)"
    )
    board.add_argument("--follow", action="store_true", help="add new rows while any of the runs is being trained")


def write_log(options: argparse.Namespace) -> None:
    from research import logbook
    from research.frames import load_runs
    from research.log import entries

    patterns = [word.removeprefix("runs=") for word in options.words if word.startswith("runs=")]
    text = " ".join(word for word in options.words if not word.startswith("runs="))
    if patterns and (text or options.figure or options.update):
        raise UsageError("an entry made from runs finds text, figures and place itself; give --note=… and --title=…")
    if options.note and not patterns:
        raise UsageError(f"--note={options.note!r}: belongs to an entry made from runs; give runs=…, or it as the text")
    if options.update:
        print(logbook.update(options.title, text, figures=options.figure, path=options.path))
    elif not patterns:
        print(logbook.append(options.title or "Notes", text, figures=options.figure, path=options.path))
    for pattern in patterns:
        done = entries.append(load_runs(pattern), options.title, options.note, path=options.path)
        print(done or f"{options.path} has these runs as they are; nothing was added")


def write_event_files(options: argparse.Namespace) -> None:
    from research.log.tensorboard import write_events

    done = write_events(options.runs, options.out, options.follow)
    print(f"{done.rows:,} rows of {done.runs} runs added; to see them: tensorboard --logdir {done.folder}")
