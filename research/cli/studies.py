"""``research sweep`` and ``research predict``: studies."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands, add_cluster_options, typed_options
from research.cli.text import blank_if_nan, print_table
from research.errors import UsageError

UNITS = {"params": "{:,.0f}", "mult_adds": "{:,.0f}"}


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    sweep = commands.add("sweep", run_sweep, "run a study: every point of a grid, what is finished skipped")
    sweep.add_argument("study", help="YAML file, or a name in notebooks/studies/")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    sweep.add_argument("--per-gpu", type=int, default=1, metavar="K", help="runs that share a GPU (default 1)")
    sweep.add_argument("--retry", type=int, default=0, metavar="N", help="try a run that failed N times again")
    sweep.add_argument("--only", default="", metavar="PATTERN", help="runs whose names match, such as '*-seed-0'")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would run, and what it will cost")
    sweep.add_argument("--no-probe", action="store_true", help="with --dry-run: reckon by earlier runs alone")
    sweep.add_argument("--confirm", action="store_true", help="run the arms of its contrasts on confirm_seeds, once")
    sweep.add_argument("--status", action="store_true", help="only tell how the runs stand")
    add_cluster_options(sweep)

    predict = commands.add("predict", rank, "rank the networks of a study by what they score before training")
    predict.add_argument("study", help="YAML file, or a name in notebooks/studies/")
    predict.add_argument("--by", default="params", metavar="MEASURE", help="what ranks them (default params)")
    predict.add_argument("--seeds", type=int, default=0, metavar="N", help="seeds of each arm to measure (default all)")
    predict.add_argument("--runs", default="", metavar="FOLDER", help="where its runs are, if some were trained")


def run_sweep(options: argparse.Namespace) -> int:
    from research.studies.cluster import show_status, sweep_on_slurm
    from research.studies.sweep import sweep

    if options.no_probe and not options.dry_run:
        raise UsageError("--no-probe: only --dry-run probes; leave it out")
    if options.status:
        return show_status(options.study, options.only, options.confirm)
    typed = typed_options(options)
    if options.on == "slurm":
        here = {"--jobs": options.jobs != 1, "--per-gpu": options.per_gpu != 1, "--retry": options.retry != 0}
        here["--no-probe"] = options.no_probe
        if given := [name for name in here if here[name]]:
            raise UsageError(
                "\n".join(f"{name}: of a sweep on this machine; with --on slurm leave it out" for name in given)
            )
        return sweep_on_slurm(options.study, typed, options.dry_run, options.wait, options.only, options.confirm)
    return sweep(
        options.study,
        jobs=options.jobs,
        dry_run=options.dry_run,
        per_gpu=options.per_gpu,
        retry=options.retry,
        only=options.only,
        probe=options.dry_run and not options.no_probe,
        confirm=options.confirm,
    )


def rank(options: argparse.Namespace) -> None:
    from research.frames.candidates import MEASURES, ranked, trust, trust_table
    from research.studies.prediction import predicted, score_named

    by = score_named(options.by)
    table = predicted(options.study, options.seeds, options.runs)
    means = ranked(table, by)
    trained = means["top1"].notna().sum()
    columns = [name for name in MEASURES if means[name].notna().any()] + (["top1"] if trained else [])
    rows = []
    for place, row in enumerate(means.itertuples(), start=1):
        numbers = [blank_if_nan(getattr(row, name), UNITS.get(name, "{:.4g}").format) for name in columns]
        rows.append([place, row.arm, *numbers])
    print_table(["", f"by {by}", *columns], rows)
    print(f"\n{len(table)} networks in {table['seconds'].sum():.1f} s, none trained")
    if trained >= 4:
        print(f"\nSpearman's correlation with top-1 over {trained} trained networks, 95 % intervals\n")
        told = trust_table(trust(table))
        print_table(list(told), told.itertuples(index=False))
