"""``research …``: every command is a thin door to one function. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from research.cli import count, data, doctor, evaluate, export, lists, log, run, runs, sweep
from research.cli.commands import Commands
from research.errors import Failure, UsageError

GROUPS = (run, evaluate, sweep, runs, log, export, data, doctor, lists, count)  # a new file of commands adds its name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 something failed, 2 a mistake of the user, 130 interrupted."""
    options = parser().parse_args(argv)
    try:
        return options.command(options) or 0
    except UsageError as error:
        for line in str(error).splitlines():
            print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
        return 2
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `research runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def console() -> None:
    warnings.formatwarning = lambda message, *where, **more: f"warning: {message}\n"
    sys.exit(main())


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="research", description="A workbench for studying how networks learn.")
    top.add_argument("--version", action="version", version=f"research {version('research')}")
    commands = Commands(top)
    for group in GROUPS:
        group.add_to(commands)
    return top
