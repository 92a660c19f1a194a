"""What a command costs before and beside what it does: CPU seconds of all its processes, against torch's import alone.

python tests/benchmarks/start.py [--rounds 5]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
RUN = ["model=mnist_mlp", "dataset=digits", "epochs=1", "device=cpu"]  # 11 steps: some hundredths of a second


class Row(NamedTuple):
    """A command, its least CPU seconds, and these as a ratio to torch's import: median of pairs, with the extremes."""

    command: str
    seconds: float
    ratio: float
    least: float
    most: float


def measured(rounds: int, folder: Path) -> list[Row]:
    """A row for each command, every one of ``rounds`` times in turn, in the empty ``folder``."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(folder / "cache")}
    commands = {
        "import torch": ["-c", "import torch"],
        "import torch, again": ["-c", "import torch"],
        "research --help": ["-m", "research", "--help"],
        "research hooks": ["-m", "research", "hooks"],
        "research models": ["-m", "research", "models"],
        "research parameters": ["-m", "research", "parameters"],
        "research train": ["-m", "research", "train", *RUN],
        "research run train": ["-m", "research", "run", "train", *RUN],
        "research runs": ["-m", "research", "runs"],
    }

    def clocked(words: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment, cwd=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(after[:2]) - sum(before[:2])

    found: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-1, rounds):  # once before what counts: what is compiled or kept at the first time
        for name, words in commands.items():
            named = [f"name={words[2]}-{number}"] if words[-1] == RUN[-1] else []
            seconds = clocked([*words, *named])
            if number >= 0:
                found[name].append(seconds)
    rows = []
    for name, each in found.items():
        ratios = [mine / torch for mine, torch in zip(each, found["import torch"], strict=True)]
        rows.append(Row(name, min(each), median(ratios), min(ratios), max(ratios)))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':22s} {'CPU s':>7s} {'ratio':>7s}")
        for row in measured(options.rounds, Path(folder)):
            print(f"{row.command:22s} {row.seconds:7.2f} {row.ratio:7.2f} ({row.least:.2f} to {row.most:.2f})")
