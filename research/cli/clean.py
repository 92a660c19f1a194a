"""``research clean``: what killed processes left lying."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.commands import Commands
from research.cli.text import print_table
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    clean = commands.add("clean", remove_leftovers, "find what killed processes left lying; --yes removes it")
    clean.add_argument("folders", nargs="*", metavar="folder", help="where to look (default: runs, and the data root)")
    clean.add_argument("--yes", action="store_true", help="remove what is found instead of listing it")


def remove_leftovers(options: argparse.Namespace) -> None:
    from research.data.datasets import data_root
    from research.runs.leftovers import find_leftovers, remove

    usual = [place for place in (Path("runs"), data_root()) if place.is_dir()]
    if not (places := [Path(folder) for folder in options.folders] or usual):
        raise UsageError("neither runs nor a folder of data here; name a folder")
    found = {leftover.path: leftover for place in places for leftover in find_leftovers(place)}
    print_table((), [(f"{each.size:,} bytes", each.path, each.what) for each in found.values()])
    for leftover in found.values() if options.yes else ():
        remove(leftover)
    done = "removed" if options.yes else "found; --yes removes them"
    print(f"{len(found)} leftovers {done}" if found else f"nothing left lying in {' and '.join(map(str, places))}")
