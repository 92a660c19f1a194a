"""``research count``: what a network costs."""

from __future__ import annotations

import argparse

from research.cli.commands import ASSIGNMENTS, Commands
from research.cli.text import print_table
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    count = commands.add("count", count_network, "count a network's parameters and multiply-adds, layer by layer")
    count.add_argument("assignments", **ASSIGNMENTS)
    count.add_argument("--input", metavar="CxHxW", help="shape of one input (default: of the data set or network)")
    count.add_argument("--legacy", action="append", default=[], metavar="RULE", help="count as the log once did")
    count.add_argument("--allow-ignored", action="store_true", help="go on where parameters have no counting rule")
    count.add_argument("--total", action="store_true", help="without the table of layers")


def count_network(options: argparse.Namespace) -> None:
    from research.parameters.assignments import parse_assignments
    from research.trained.network_cost import count_run

    shape = None
    if options.input:
        shape = shape_of(options.input)
    done = count_run(parse_assignments(options.assignments), shape, options.legacy, options.allow_ignored)
    if not options.total:
        rows = list(done.table())
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
        print()
    for cost in (done.own, done.cost) if done.report or done.cost != done.own else (done.own,):
        print(cost)
        if cost.ignored:
            print(f"not counted: {', '.join(f'{kind} ({n:,})' for kind, n in cost.ignored.items())}")
        print()
    print(f"as it trains: {done.cost.params:,} params, {done.cost.nonzeros:,} nonzeros")
    if done.report:
        print(done.report)


def shape_of(text: str) -> tuple[int, ...]:
    """The shape of one input from ``text``: channels, height and width, or the length of a vector."""
    parts = text.split("x")
    shape = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    if len(shape) != len(parts) or len(shape) not in (1, 3) or 0 in shape:
        raise UsageError(f"--input={text!r}: expected CxHxW, such as 3x32x32")
    if 1 in shape[1:]:
        raise UsageError(f"--input={text!r}: an image must be at least 2 pixels high and wide")
    return shape
