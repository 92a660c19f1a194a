"""Options of every command that can queue runs on a cluster."""

from __future__ import annotations

import argparse
from typing import Any

from research.errors import UsageError
from research.launcher.slurm.options import IN_FILES_ONLY, Options
from research.parameters.signatures import parameters_of


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
