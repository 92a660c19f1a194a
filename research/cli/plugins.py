"""``research new`` and ``research check``: a method, network or layer of one's own, begun and held to its promises."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    new = commands.add("new", begin, "begin a method, network or layer of your own: a file that works, and its test")
    new.add_argument("kind", help="hook, model or layer")
    new.add_argument("name", help="of the method, network or layer, and of the file")
    check = commands.add("check", check_plugins, "hold what a plugin registers to what this package's own promise")
    check.add_argument("plugins", nargs="+", metavar="FILE", help="files or modules, as in plugin=")


def begin(options: argparse.Namespace) -> None:
    from research.contracts.new import begin

    made, test = begin(options.kind, options.name, Path())
    use = {"hook": f"{options.name}=true", "model": f"model={options.name}", "layer": f"substitute={options.name}"}
    print(f"{made} and {test}")
    for command in (f"check {made}", f"train plugin={made} {use[options.kind]} epochs=2"):
        print(f"next: research {command}")


def check_plugins(options: argparse.Namespace) -> int:
    """Print a line for each promise as soon as it has been tried; 1 when one is broken."""
    from research.contracts.check import check

    broken = 0
    for result in check(options.plugins):
        broken += result.outcome == "broken"
        print(f"{result.outcome:<7} {result.name}  {result.promise}{f': {result.why}' * bool(result.why)}", flush=True)
    print(f"{broken} broken" if broken else "all kept")
    return 1 if broken else 0
