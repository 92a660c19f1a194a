"""``research evaluate`` and ``research export``: trained networks on their validation set, and for inference."""

from __future__ import annotations

import argparse
import os

from research.cli.commands import Commands
from research.cli.text import print_table
from research.errors import UsageError


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    evaluate = commands.add(
        "evaluate", show_evaluation, "evaluate weights: of runs, of files, of published checkpoints"
    )
    evaluate.add_argument("words", nargs="+", metavar="PATH | key=value", help="runs and files; parameters that win")
    evaluate.add_argument("--last", action="store_true", help="of a run: the newest checkpoint, not the best weights")
    evaluate.add_argument("--ema", action="store_true", help="the moving average of the weights")
    export = commands.add("export", export_run, "write a run's best weights for inference, or its network as ONNX")
    export.add_argument("run", help="folder of the run")
    export.add_argument(
        "--format",
        default="csr",
        metavar="csr|dense|2:4|onnx",
        help="csr: sparse linear layers without their zeros; 2:4: for GPUs; onnx: for other programs (default csr)",
    )
    export.add_argument("--out", default="", metavar="FILE", help="default: NAME.FORMAT.… in the folder of the run")


def show_evaluation(options: argparse.Namespace) -> None:
    from research.parameters.assignments import parse_assignments
    from research.trained.evaluate_weights import evaluate_weights

    # a parameter's name has no slash, a run's name may have an equals sign
    paths = [word for word in options.words if "=" not in word or "/" in word.partition("=")[0] or os.path.exists(word)]
    given = parse_assignments(word for word in options.words if word not in paths)
    if not paths:
        raise UsageError(f"{' '.join(options.words)}: expected at least one run or file to evaluate")
    rows = evaluate_weights(paths, given, last=options.last, ema=options.ema)
    formats = {"top1": "{:.3f}", "top5": "{:.3f}", "loss": "{:.4f}"} | dict.fromkeys(
        ("norm", "mean", "max", "var"), "{:.3f}"
    )
    header = [{"top1": "top-1 %", "top5": "top-5 %"}.get(name, name) for name in rows[0]]
    print_table(header, [[formats.get(name, "{}").format(value) for name, value in row.items()] for row in rows])


def export_run(options: argparse.Namespace) -> None:
    from research.trained.export import export

    done = export(options.run, options.format, options.out)
    print_table((), [(f"layer {name}", f"{100 * density:.2f} % non-zero") for name, density in done.layers.items()])
    print(f"{done.bytes:,} bytes, of {done.dense_bytes:,} dense")
    print(f"outputs within {done.difference:.1e} of the run's on {done.inputs}")
    print(done.path)
