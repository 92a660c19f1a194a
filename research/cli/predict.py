"""``research predict``: the networks of a study, ranked before any is trained."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.cli.text import blank_if_nan, print_table

UNITS = {"params": "{:,.0f}", "mult_adds": "{:,.0f}", "nonzeros": "{:,.0f}"}


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    predict = commands.add("predict", rank, "rank the networks of a study by what they score before training")
    predict.add_argument("study", help="YAML file, or a name in notebooks/studies/")
    predict.add_argument("--by", default="naswot", metavar="MEASURE", help="what ranks them (default naswot)")
    predict.add_argument("--seeds", type=int, default=0, metavar="N", help="seeds of each arm to measure (default all)")
    predict.add_argument("--runs", default="", metavar="FOLDER", help="where its runs are, if some were trained")


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
