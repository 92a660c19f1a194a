"""What every command has: a name, a function of its options, a line of help; and options that several share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from research.errors import UsageError, closest
from research.launcher.slurm.options import IN_FILES_ONLY, Options
from research.parameters.signatures import parameters_of

ASSIGNMENTS = {"metavar": "key=value", "nargs": "*", "help": "see `research parameters`, `research hooks`"}


class Parser(argparse.ArgumentParser):
    """A parser that reports mistakes like the rest of the program, with the closest valid word."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument command: invalid choice: '(.*)' \(choose from (.*)\)$", message, re.S):
            known = [name.strip("' ") for name in wrong[2].split(",")]
            message = f"unknown command {wrong[1]!r}{closest(wrong[1], known) or f'; `{self.prog} --help` lists them'}"
        raise UsageError(message.removeprefix("argument "))


class Commands:
    """The commands of one parser, to which each file of this folder adds its own in ``add_to``."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._parsers = parser.add_subparsers(metavar="command", required=True)

    def add(self, name: str, function: Callable[[argparse.Namespace], int | None] | None, text: str) -> Any:
        """Add the command ``name`` and return its parser; ``function`` returns an exit code, or None."""
        parser = self._parsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        parser.set_defaults(command=function)
        return parser


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--on slurm``, what may be asked of Slurm, and whether to wait."""
    parser.add_argument("--on", choices=("slurm",), help="queue it on this cluster instead, and return at once")
    parser.add_argument("--wait", action="store_true", help="with --on: follow it to its end")
    group = parser.add_argument_group("with --on slurm", "also in slurm.yaml and in the block slurm: of a study")
    for name, parameter in parameters_of(Options).items():
        if name not in IN_FILES_ONLY:
            group.add_argument(f"--{name.replace('_', '-')}", metavar="…", help=parameter.help)


def typed_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of Slurm that were typed.

    Raises:
        UsageError: some were, and nothing is to be queued.
    """
    names = [name for name in parameters_of(Options) if name not in IN_FILES_ONLY]
    typed = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.on is None:
        given = [f"--{name.replace('_', '-')} {value}" for name, value in typed.items()]
        given += ["--wait"] if options.wait else []
        if given:
            raise UsageError("\n".join(f"{each}: needs --on slurm" for each in given))
    return typed
