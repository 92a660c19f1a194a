"""``research translate``: original command lines of the five systems as commands of this program."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from research.cli.commands import Commands
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the command of this file."""
    translating = commands.add(
        "translate", translate_lines, "write original commands of the five systems as commands of this program"
    )
    translating.add_argument(
        "words", nargs="*", metavar="-- COMMAND", help="a command line; without one, lines are read from standard input"
    )


def translate_lines(options: argparse.Namespace) -> int:
    from research.config.shell import Line, read_lines
    from research.config.translation import translate

    given = [Line(1, shlex.join(options.words), [], options.words)] if options.words else None
    refused = 0
    for line in given or read_lines(sys.stdin, os.environ):
        if not line.words:
            print(line.text)
            continue
        try:
            if line.problem:
                raise UsageError(line.problem)
            print("\n".join(translate(line.words).lines(line.environment)))
        except UsageError as error:
            refused += 1
            print(f"# not translated: {line.text}")
            sys.stdout.flush()
            for told in str(error).splitlines():
                print(f"error: line {line.number}: {told}" if given is None else f"error: {told}", file=sys.stderr)
    return 2 if refused else 0
