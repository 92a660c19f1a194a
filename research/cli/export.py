"""``research export``: weights for inference."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.cli.text import print_table


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    export = commands.add(
        "export", export_run, "write a run's best weights for inference: sparse ones without their zeros"
    )
    export.add_argument("run", help="folder of the run")
    export.add_argument(
        "--format",
        default="csr",
        metavar="csr|dense|2:4",
        help="csr: sparse linear layers; 2:4: for GPUs (default csr)",
    )
    export.add_argument("--out", default="", metavar="FILE", help="default: NAME.FORMAT.safetensors here")


def export_run(options: argparse.Namespace) -> None:
    from research.trained.export import export

    done = export(options.run, options.format, options.out)
    print_table((), [(f"layer {name}", f"{100 * density:.2f} % non-zero") for name, density in done.layers.items()])
    print(f"{done.bytes:,} bytes, of {done.dense_bytes:,} dense")
    print(f"outputs within {done.difference:.1e} of the run's on random inputs")
    print(done.path)
