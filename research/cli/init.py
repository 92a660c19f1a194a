"""``research init``: a folder to work in, with the notebooks and studies that come with the package."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Add the command of this file."""
    init = commands.add("init", init_folder, "make a folder to work in: notebooks, studies, a log, a place for runs")
    init.add_argument("folder", nargs="?", default=".", help="made if it is not there (default: this one)")


def init_folder(options: argparse.Namespace) -> None:
    from research.notebooks.workbench import make_workbench

    folder = Path(options.folder)
    made, kept = make_workbench(folder)
    print(f"{folder.resolve()}: {len(made)} files made; nothing that was there is changed")
    for name in kept:
        print(f"yours, which differs from the one that is shipped: {folder / name}")
    print(
        f"next: cd {folder} && research run train epochs=2     (or, for a browser: jupyter lab notebooks/train.ipynb)"
    )
