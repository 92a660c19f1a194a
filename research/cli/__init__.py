"""``research …``: every command calls one function. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from research.cli import clean, count, data, doctor, init, lists, log, plugins, run, runs, studies, trained, translate
from research.cli.commands import Commands, Parser
from research.errors import Failure, Note, UsageError

GROUPS = (
    run,
    trained,
    studies,
    runs,
    log,
    data,
    init,
    plugins,
    doctor,
    clean,
    lists,
    translate,
    count,
)  # a new file of commands adds its name


OF_THE_MACHINE = frozenset(
    getattr(errno, name) for name in "ENOSPC EDQUOT EROFS EACCES EPERM ENAMETOOLONG EIO EFBIG EMFILE ENFILE".split()
)
"""What a disk or the permissions on it refuse, which is no defect of the program."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 something failed, 2 a mistake of the user, 130 interrupted."""
    try:
        options = parser().parse_args(argv)
        return options.command(options) or 0
    except (UsageError, Failure) as error:
        print(*error.told(), sep="\n", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `research runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return 1


def console() -> None:
    warnings.formatwarning = warning_line
    sys.exit(main())


def warning_line(message: Warning | str, kind: type[Warning], *where: object, **more: object) -> str:
    """A warning as one line, without the place in the code that gave it."""
    return f"{'note' if issubclass(kind, Note) else 'warning'}: {message}\n"


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="research", description="A workbench for studying how networks learn.")
    top.add_argument("--version", action="version", version=f"research {version('research')}")
    commands = Commands(top)
    for group in GROUPS:
        group.add_to(commands)
    return top
