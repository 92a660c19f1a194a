"""What a run of a fraction of a second costs in a sweep, against a shell loop over ``research train``.

python tests/benchmarks/sweep.py [--runs 64] [--loop 3] [--rounds 2]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TINY = {"model": "mnist_mlp", "epochs": 1, "device": "cpu"}


def clocked(*commands: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU that ``commands`` take, one after another."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run([sys.executable, "-m", "research", *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, sum(after[:2]) - sum(before[:2])


def loop(runs: int, name: str, command: list[str]) -> tuple[float, float]:
    """A shell loop over ``command``; seconds a run."""
    words = [f"{key}={value}" for key, value in TINY.items()]
    wall, cpu = clocked(*([*command, *words, f"seed={seed}", f"name={name}-{seed}"] for seed in range(runs)))
    return wall / runs, cpu / runs


def sweep(runs: int, name: str) -> tuple[float, float]:
    """One sweep, its start included; seconds a run. The CPU time of what a server forked is the server's to tell."""
    base = ", ".join(f"{key}: {value}" for key, value in TINY.items())
    study = Path(f"{name}.yaml")
    study.write_text(f"name: {name}\nbase: {{{base}}}\nseeds: {list(range(runs))}\n")
    wall, cpu = clocked(["sweep", str(study), "--jobs", "2"])
    return wall / runs, cpu / runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=64, help="of the sweep")
    parser.add_argument("--loop", type=int, default=3, help="runs of each loop")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    ways = {
        "research train, a loop": lambda name: loop(options.loop, name, ["train"]),
        "research run train, a loop": lambda name: loop(options.loop, name, ["run", "train"]),
        f"research sweep --jobs 2, {options.runs} runs": lambda name: sweep(options.runs, name),
    }
    os.chdir(tempfile.mkdtemp())
    found = {way: [] for way in ways}
    for number in range(options.rounds):
        for index, (way, measure) in enumerate(ways.items()):
            found[way].append(measure(f"r{number}-{index}"))
    print(f"digits, mnist_mlp, one epoch of 11 steps; least of {options.rounds} rounds, seconds a run")
    print(f"{'':36s} {'clock':>7s} {'CPU':>7s}")
    for way, each in found.items():
        wall, cpu = map(min, zip(*each, strict=True))
        print(f"{way:36s} {wall:7.2f} {cpu:7.2f}")
