"""``research …``: every command is a thin door to one function. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from research.errors import Failure, UsageError, nearest

ASSIGNMENTS = {"metavar": "key=value", "nargs": "*", "help": "see `research parameters`, `research hooks`"}
ROOT = {"default": "", "metavar": "FOLDER", "help": "where the data lies (default: $RESEARCH_DATA, else ./data)"}
MODES = ("raw", "jpg", "smart")


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
    commands = top.add_subparsers(metavar="command", required=True)

    def add(name: str, function: Any, text: str, to: Any = commands) -> argparse.ArgumentParser:
        made = to.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=function)
        return made

    run = add("run", run_notebook, "execute a notebook with parameters, through papermill")
    run.add_argument("notebook", help="name under notebooks/, such as train or analysis/curves, or a path")
    run.add_argument("assignments", **ASSIGNMENTS)
    add("train", train, "train without a notebook; the same run").add_argument("assignments", **ASSIGNMENTS)

    evaluate = add("evaluate", evaluate_weights, "evaluate weights: of runs, of files, of published checkpoints")
    evaluate.add_argument("words", nargs="+", metavar="PATH | key=value", help="runs and files; parameters that win")
    evaluate.add_argument("--last", action="store_true", help="of a run: the newest checkpoint, not the best weights")
    evaluate.add_argument("--ema", action="store_true", help="the moving average of the weights")

    sweep = add("sweep", run_sweep, "run a study: every point of a grid, what is finished skipped")
    sweep.add_argument("study", help="YAML file, see notebooks/studies/")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would run")

    runs = add("runs", show_runs, "list runs: status, epoch, best top-1, time, hooks")
    runs.add_argument("folder", nargs="?", default="runs", help="folder of runs, or a pattern such as 'runs/demo-*'")

    log = add("log", write_log, "append to the research log: a note, or an entry made from runs")
    log.add_argument("words", nargs="+", metavar="TEXT | runs=PATTERN", help="a note; or the runs to write an entry of")
    log.add_argument("--title", default="", help="heading of the entry (default: Notes; of runs: what they are)")
    log.add_argument("--note", default="", help="first sentence of an entry made from runs: what they are for")
    log.add_argument("--update", action="store_true", help="put the text as an update under the entry called TITLE")
    log.add_argument("--figure", action="append", default=[], metavar="FILE", help="an image for the entry; repeatable")
    log.add_argument("--path", default="research-log.md", metavar="FILE", help="the log (default: research-log.md)")

    export = add("export", export_run, "write a run's best weights for inference: sparse ones without their zeros")
    export.add_argument("run", help="folder of the run")
    export.add_argument("--format", default="csr", metavar="csr|dense|2:4", help="see research/export.py (default csr)")
    export.add_argument("--out", default="", metavar="FILE", help="default: NAME.FORMAT.safetensors here")

    add_data_commands(add("data", None, "write, verify and list data").add_subparsers(required=True), add)
    add("doctor", doctor, "check the installation, and say what to do about each problem")
    add("parameters", show_parameters, "list every parameter of a run")
    hooks = add("hooks", show_hooks, "list the methods and their parameters")
    hooks.add_argument("names", nargs="*", metavar="hook")
    add("recipes", show_recipes, "list published hyperparameters")
    add("models", show_models, "list networks and their arguments")
    substitutes = add("substitutes", show_substitutes, "list what may stand in the place of convolutions")
    substitutes.add_argument("names", nargs="*", metavar="family")
    count = add("count", count_network, "count a network's parameters and multiply-adds, layer by layer")
    count.add_argument("assignments", **ASSIGNMENTS)
    count.add_argument("--input", metavar="CxHxW", help="shape of one input (default: of the data set or network)")
    count.add_argument("--legacy", action="append", default=[], metavar="RULE", help="count as the log once did")
    count.add_argument("--allow-ignored", action="store_true", help="go on where parameters have no counting rule")
    count.add_argument("--total", action="store_true", help="without the table of layers")
    return top


def add_data_commands(commands: Any, add: Any) -> None:
    write = add("write", write_data, "write a data set as FFCV files (.beton)", commands)
    write.add_argument("dataset")
    write.add_argument("--root", **ROOT)
    write.add_argument("--out", metavar="FOLDER", help="where the files go (default: the root)")
    write.add_argument("--split", action="append", choices=("train", "val"), help="only this split")
    write.add_argument("--mode", default="raw", choices=MODES, help="how pixels are kept")
    write.add_argument("--max-resolution", type=int, metavar="PIXELS", help="bound of the longer side")
    write.add_argument("--quality", type=int, default=90, help="of JPEG (default 90)")
    write.add_argument("--skip-bad", action="store_true", help="leave unreadable images out instead of stopping")
    write.add_argument("--download", action="store_true", help="fetch the data set first")
    add("verify", verify_data, "read an FFCV file again, every sample", commands).add_argument("beton")
    add("list", list_data, "list data sets and FFCV files", commands).add_argument("--root", **ROOT)


# -- commands -----------------------------------------------------------------------------------------------------


def run_notebook(options: argparse.Namespace) -> None:
    from research.config import parse_assignments
    from research.notebooks import execute

    print(execute(options.notebook, parse_assignments(options.assignments)))


def train(options: argparse.Namespace) -> None:
    from research.config import Config, parse_assignments
    from research.launch import launch

    config = Config.load(parse_assignments(options.assignments))
    print(launch(config).dir)


def evaluate_weights(options: argparse.Namespace) -> None:
    from research.assess import assess
    from research.config import parse_assignments

    # a parameter's name has no slash, a run's name may have an equals sign
    paths = [word for word in options.words if "=" not in word or "/" in word.partition("=")[0] or os.path.exists(word)]
    given = parse_assignments(word for word in options.words if word not in paths)
    if not paths:
        raise UsageError(f"{' '.join(options.words)}: expected at least one run or file to evaluate")
    rows = assess(paths, given, last=options.last, ema=options.ema)
    formats = {"top1": "{:.3f}", "top5": "{:.3f}", "loss": "{:.4f}"} | dict.fromkeys(
        ("norm", "mean", "max", "var"), "{:.3f}"
    )
    header = [{"top1": "top-1 %", "top5": "top-5 %"}.get(name, name) for name in rows[0]]
    print_table(header, [[formats.get(name, "{}").format(value) for name, value in row.items()] for row in rows])


def run_sweep(options: argparse.Namespace) -> int:
    from research.sweep import sweep

    return sweep(options.study, jobs=options.jobs, dry_run=options.dry_run)


def show_runs(options: argparse.Namespace) -> None:
    from research.frames import load_runs

    print_table(("run", "status", "epoch", "best top-1 %", "time", "hooks"), [
        (r.name, r.status, r.epoch, shown(r.best_top1, "{:.2f}".format), shown(r.seconds, clock), r.hooks)
        for r in load_runs(options.folder).itertuples()
    ])  # fmt: skip


def write_log(options: argparse.Namespace) -> None:
    from research import entries, logbook
    from research.frames import load_runs

    patterns = [word.removeprefix("runs=") for word in options.words if word.startswith("runs=")]
    text = " ".join(word for word in options.words if not word.startswith("runs="))
    if patterns and (text or options.figure or options.update):
        raise UsageError("an entry made from runs finds text, figures and place itself; give --note=… and --title=…")
    if options.note and not patterns:
        raise UsageError(f"--note={options.note!r}: belongs to an entry made from runs; give runs=…, or it as the text")
    if options.update:
        print(logbook.update(options.title, text, figures=options.figure, path=options.path))
    elif not patterns:
        print(logbook.append(options.title or "Notes", text, figures=options.figure, path=options.path))
    for pattern in patterns:
        done = entries.append(load_runs(pattern), options.title, options.note, path=options.path)
        print(done or f"{options.path} has these runs as they are; nothing was added")


def export_run(options: argparse.Namespace) -> None:
    from research.export import export

    done = export(options.run, options.format, options.out)
    print_table((), [(f"layer {name}", f"{100 * density:.2f} % non-zero") for name, density in done.layers.items()])
    print(f"{done.bytes:,} bytes, of {done.dense_bytes:,} dense")
    print(f"outputs within {done.difference:.1e} of the run's on random inputs")
    print(done.path)


def write_data(options: argparse.Namespace) -> None:
    from research.data.beton import write

    written = write(
        options.dataset,
        root=options.root,
        out=options.out,
        splits=tuple(options.split or ("train", "val")),
        mode=options.mode,
        max_resolution=options.max_resolution,
        quality=options.quality,
        skip_bad=options.skip_bad,
        download=options.download,
    )
    print(*written, sep="\n")


def verify_data(options: argparse.Namespace) -> None:
    from research.data.beton import verify

    print_table((), verify(options.beton).items())


def list_data(options: argparse.Namespace) -> None:
    from research.data.beton import list_betons
    from research.data.datasets import DATASETS, data_root

    root = data_root(options.root)
    print_table(("data set", "classes", "shape", ""), [
        (d.name, d.classes or "", "x".join(map(str, d.shape)), d.summary) for d in DATASETS.values()
    ])  # fmt: skip
    betons = list_betons(options.root) if root.exists() else []
    print(f"\nFFCV files in {root}:" if betons else f"\nno FFCV files in {root} (`research data write` makes them)")
    if betons:
        columns = list(dict.fromkeys(column for beton in betons for column in beton))
        print_table(columns, [[beton.get(column, "") for column in columns] for beton in betons])


def doctor(options: argparse.Namespace) -> int:
    from research.doctor import examine

    return examine()


def show_parameters(options: argparse.Namespace) -> None:
    from research.config import Config

    print_parameters("", Config.parameters().values())


def show_hooks(options: argparse.Namespace) -> None:
    from research.arguments import parameters_of
    from research.hooks import HOOKS

    for name in options.names or HOOKS:
        if name not in HOOKS:
            raise UsageError(f"unknown hook {name!r}{nearest(name, HOOKS)}")
        print(f"{name}: {first_line(HOOKS[name])}")
        print_parameters(f"  {name}.", parameters_of(HOOKS[name]).values())


def show_recipes(options: argparse.Namespace) -> None:
    from research.recipes import describe

    print_table(("recipe", ""), describe().items())


def show_models(options: argparse.Namespace) -> None:
    from research.arguments import parameters_of
    from research.models import MODELS

    alike: dict[tuple, list[str]] = {}  # (what it is, its arguments) -> names, so that families are one entry
    for name, constructor in MODELS.items():
        own = tuple(p for p in parameters_of(constructor).values() if not p.required)
        alike.setdefault((first_line(constructor), own), []).append(name)
    for (what, own), names in alike.items():
        print(": ".join(filter(None, (" ".join(names), what))))
        print_parameters("  model_args.", own)
    print("torchvision:NAME and timm:NAME: every network of those libraries")


def show_substitutes(options: argparse.Namespace) -> None:
    from research.arguments import parameters_of
    from research.layers import LAYERS
    from research.layers.spec import Options, log_names

    for name in options.names or LAYERS:
        if name not in LAYERS:
            raise UsageError(f"unknown family {name!r}{nearest(name, LAYERS)}")
        print(f"{name}: {first_line(LAYERS[name])}")
        print_parameters("  ", parameters_of(LAYERS[name]).values())
        for log_name, spec in log_names().items():
            if spec.partition(":")[0] == name:
                print(f"  in the log: {log_name} = {spec}")
    print("every family, besides:")
    print_parameters("  ", parameters_of(Options).values())


def count_network(options: argparse.Namespace) -> None:
    from research.config import parse_assignments
    from research.counted import count_run

    shape = None
    if options.input:
        try:
            shape = tuple(int(n) for n in options.input.split("x"))
        except ValueError:
            raise UsageError(f"--input={options.input!r}: expected CxHxW, such as 3x32x32") from None
    done = count_run(parse_assignments(options.assignments), shape, options.legacy, options.allow_ignored)
    if not options.total:
        rows = list(done.table())
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
        print()
    for cost in (done.own, done.cost) if done.report else (done.own,):
        print(cost)
        if cost.ignored:
            print(f"not counted: {', '.join(f'{kind} ({n:,})' for kind, n in cost.ignored.items())}")
        print()
    if done.report:
        print(done.report)


# -- text ---------------------------------------------------------------------------------------------------------


def print_parameters(prefix: str, parameters: Iterable[Any]) -> None:
    """One line a parameter: how to type it, its default, type, limits and meaning."""
    print_table((), [
        (f"{prefix}{p.name}={_shown(p.default)}", f"{p.type_name} {p.limits}".strip(), p.help) for p in parameters
    ])  # fmt: skip


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their longest cell."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(map(list, rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def shown(number: float, show: Callable[[float], str]) -> str:
    """``show(number)``, or nothing for nan: not measured yet."""
    return "" if number != number else show(number)


def first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in ("", {}, ()) else str(list(default) if isinstance(default, tuple) else default)
