"""``research clean``: what killed processes left lying, and checkpoints of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.commands import Commands
from research.cli.text import print_table
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    clean = commands.add("clean", clean_up, "find what killed processes left lying; --yes removes it")
    clean.add_argument("folders", nargs="*", metavar="folder", help="where to look (default: runs, and the data root)")
    clean.add_argument(
        "--checkpoints", choices=("older", "all"), help="checkpoints of finished runs too: all but the newest, or all"
    )
    clean.add_argument("--yes", action="store_true", help="remove what is found instead of listing it")


def clean_up(options: argparse.Namespace) -> None:
    from research.data.datasets import data_root
    from research.runs.leftovers import find_leftovers, remove
    from research.trained.old_checkpoints import find_checkpoints, remove_checkpoint

    usual = [place for place in (Path("runs"), data_root()) if place.is_dir()]
    if not (places := [Path(folder) for folder in options.folders] or usual):
        raise UsageError("neither runs nor a folder of data here; name a folder")
    found = {each.path: (each, remove) for place in places for each in find_leftovers(place)}
    if options.checkpoints:
        for each in (each for place in places for each in find_checkpoints(place, options.checkpoints)):
            found.setdefault(each.path, (each, remove_checkpoint))
    print_table((), [(f"{each.size:,} bytes", each.path, each.what) for each, _ in found.values()])
    for each, remove_it in found.values() if options.yes else ():
        remove_it(each)
    if not found:
        print(f"nothing left lying in {' and '.join(map(str, places))}")
        return
    what = "files" if options.checkpoints else "leftovers"
    size = sum(each.size for each, _ in found.values()) / 1e9
    print(f"{len(found)} {what} {'removed' if options.yes else 'found; --yes removes them'} ({size:.3g} GB)")
