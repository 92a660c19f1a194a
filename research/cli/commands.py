"""What every command has: a name, a function of its options, and a line of help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from research.errors import UsageError, closest

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
