"""What a run of a fraction of a second costs in a sweep, against a shell loop over ``research train``.

    python tests/benchmarks/sweep.py

Seconds by the clock, because what the processes of a sweep fork is theirs to count: other work on the machine hurts.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

from pairs import Row, Ways, main

REPOSITORY = Path(__file__).parents[2]
TINY = {"model": "mnist_mlp", "epochs": 1, "device": "cpu"}
NUMBERS = count()


def clock(work) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def execute(folder: str, words: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "research", *words]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment)


def sweep(folder: str, runs: int) -> None:
    """A sweep of ``runs`` runs, two at a time, its start included."""
    name = f"sweep-{next(NUMBERS)}"
    base = ", ".join(f"{key}: {value}" for key, value in TINY.items())
    study = Path(folder) / f"{name}.yaml"
    study.write_text(f"name: {name}\nbase: {{{base}}}\nseeds: {list(range(runs))}\n")
    execute(folder, ["sweep", str(study), "--jobs", "2"])


def one(folder: str) -> None:
    words = [f"{key}={value}" for key, value in TINY.items()]
    execute(folder, ["train", *words, f"name=run-{next(NUMBERS)}"])


def against_a_loop(small: bool) -> Ways:
    folder, runs = tempfile.mkdtemp(), 2 if small else 8
    return Ways(partial(sweep, folder, runs), partial(one, folder), more=runs, cost=clock)


ROWS = [Row("research sweep --jobs 2, 8 runs of 11 steps", "a shell loop of research train", ">= 3", against_a_loop)]

if __name__ == "__main__":
    main(ROWS, __doc__)
