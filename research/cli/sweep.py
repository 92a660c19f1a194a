"""``research sweep``: a study."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    sweep = commands.add("sweep", run_sweep, "run a study: every point of a grid, what is finished skipped")
    sweep.add_argument("study", help="YAML file, see notebooks/studies/")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    sweep.add_argument("--per-gpu", type=int, default=1, metavar="K", help="runs that share a GPU (default 1)")
    sweep.add_argument("--retry", type=int, default=0, metavar="N", help="try a run that failed N times again")
    sweep.add_argument("--only", default="", metavar="PATTERN", help="runs whose names match, such as '*-seed-0'")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would run")


def run_sweep(options: argparse.Namespace) -> int:
    from research.studies.sweep import sweep

    return sweep(
        options.study,
        jobs=options.jobs,
        dry_run=options.dry_run,
        per_gpu=options.per_gpu,
        retry=options.retry,
        only=options.only,
    )
