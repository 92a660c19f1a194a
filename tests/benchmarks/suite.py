"""Every row of every program against its rival and its aim: a table, one JSON and figures (``make bench``).

python tests/benchmarks/suite.py [--out FOLDER] [--only ldi nmi]     # under 15 minutes on two quiet cores
python tests/benchmarks/suite.py --markdown FOLDER/bench.json        # its table for a document
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distributions
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from figure import against_aims, growth_against_size
from pairs import HEAD, Row, measured

from research.figures.style import render
from research.files import write_atomic
from research.runs.environment import environment

PROGRAMS = (
    "pictures",
    "loaders",
    "methods",
    "frameworks",
    "power_grad",
    "nmi",
    "ldi",
    "sparse",
    "population",
    "checkpoints",
    "frames",
    "start",
    "sweep",
)
RIVALS = ("lightning", "accelerate", "mosaicml", "webdataset", "simplejpeg", "scikit-learn", "torchmetrics")
RIVALS += ("fast-histogram",)
RESULTS = Path(__file__).parent / "results"


def rows_of(program: str, seconds: float, small: bool) -> list[dict[str, Any]]:
    """All rows of a program, in this process; one that says so if it needs what is not there."""
    print(f"\n{program}.py", flush=True)
    try:
        rows = importlib.import_module(program).ROWS
    except ImportError as error:
        rows = [Row(f"{program}.py", "", "", lambda small: None, needs=error.name)]
    return [{"program": program} | row for row in measured(rows, seconds, small)]


def growth_rows(small: bool) -> list[dict[str, Any]]:
    """How costs grow with size, in this process."""
    growth = importlib.import_module("growth")
    return growth.measured(growth.GROWTHS, small)


def run(programs: list[str], seconds: float, small: bool) -> dict[str, Any]:
    """The results of ``programs``, each in a process of its own, which leaves the next one nothing to pay for."""
    started, told = time.monotonic(), provenance()
    print(HEAD)
    rows = []
    for program in programs:
        rows += alone(rows_of, program, seconds, small)
    found = told | {"rows": rows}
    if set(programs) == set(PROGRAMS):
        found["growth"] = alone(growth_rows, small)
    return found | {"seconds": round(time.monotonic() - started)}


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What ``function`` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def provenance() -> dict[str, Any]:
    """Date, code, versions and machine."""
    found = environment(torch.device("cpu"), 1)
    installed = {each.name: each.version for each in distributions()}
    processor = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    machine = {
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": psutil.virtual_memory().total,
        "load before": os.getloadavg()[0],
    }
    found["packages"] |= {name: installed.get(name, "missing") for name in RIVALS}
    told = {name: found[name] for name in ("started", "commit", "uncommitted", "python", "packages")}
    return told | {"machine": machine}


def markdown(results: dict[str, Any]) -> str:
    """The table of a document, with what it was measured on and when."""
    machine, packages = results["machine"], results["packages"]
    cores = f"{machine['cores']} cores of {machine['processor']}, load {machine['load before']:.1f}"
    lines = [
        f"{results['started'][:10]}, commit {results['commit'][:7]}, {cores}; "
        + ", ".join(f"{name} {version}" for name, version in packages.items()),
        "",
        "| | against | ratio | p10 to p90 | A/A | aim | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in results["rows"]:
        if row["missing"]:
            lines.append(f"| {row['subject']} | {row['rival']} | | | | {row['aim']} | {row['missing']} |")
            continue
        spread, noise = ("{:.3g} to {:.3g}".format(*row[name]) for name in ("spread", "noise"))
        outcome = "met" if row["met"] else "**missed**"
        cells = (row["subject"], row["rival"], f"{row['ratio']:.3g}", spread, noise, row["aim"], outcome)
        lines.append(f"| {' | '.join(cells)} |")
    if "growth" in results:
        lines += ["", "| cost | against | grows with the power | 95 % interval |", "| --- | --- | ---: | ---: |"]
        for row in results["growth"]:
            interval = "{:.2f} to {:.2f}".format(*row["interval"])
            lines.append(f"| {row['subject']} | {row['size']} | {row['exponent']:.2f} | {interval} |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of bench.json")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="programs")
    parser.add_argument("--seconds", type=float, default=1.0, help="that pairs of a row are taken for; at least 3 are")
    parser.add_argument("--small", action="store_true", help="the smallest form, to see that all runs")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print the table of an earlier run")
    given = parser.parse_args(words)
    if given.markdown:
        print(markdown(json.loads(given.markdown.read_text())))
        return 0
    results = run(given.only, given.seconds, given.small)
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomic(given.out / "bench.json", json.dumps(results, indent=1) + "\n")
    write_atomic(given.out / "bench.png", render(against_aims(results))[".png"])
    growth = results.get("growth")
    if growth:
        write_atomic(given.out / "growth.png", render(growth_against_size(growth))[".png"])
    told = f"# What `make bench` measured\n\n![ratios in units of their aims](bench.png)\n\n{markdown(results)}\n"
    told += "\n![costs against sizes](growth.png)\n" if growth else ""
    write_atomic(given.out / "README.md", told)
    print(f"\n{results['seconds']} s; {given.out / 'bench.json'}")
    return int(any(str(row["missing"]).startswith("failed") for row in results["rows"]))


if __name__ == "__main__":
    sys.exit(main())
