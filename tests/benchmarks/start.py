"""What a command costs before and beside what it does: CPU seconds of all its processes.

python tests/benchmarks/start.py
"""

import os
import subprocess
import sys
import tempfile
from functools import cache, partial
from itertools import count
from pathlib import Path

from pairs import Row, Ways, main

REPOSITORY = Path(__file__).parents[2]
RUN = ["model=mnist_mlp", "dataset=digits", "epochs=1", "device=cpu"]  # 11 steps: some hundredths of a second
NUMBERS = count()  # of runs, each in a folder of its own


@cache
def folder() -> tempfile.TemporaryDirectory:
    """Where commands run, with an empty cache."""
    return tempfile.TemporaryDirectory()


def execute(words: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": f"{folder().name}/cache"}
    named = [f"name=run-{next(NUMBERS)}"] if words[-1] == RUN[-1] else []
    command = [sys.executable, *words, *named]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder().name)


def against_torch(words: list[str], small: bool) -> Ways:
    return Ways(partial(execute, ["-m", "research", *words]), partial(execute, ["-c", "import torch"]))


def within(limit: float, words: list[str], small: bool) -> Ways:
    return Ways(partial(execute, ["-m", "research", *words]), limit)


TRAIN = "research train, 11 steps on digits"
ROWS = [
    Row(TRAIN, "4.5 s", "<= 1", partial(within, 4.5, ["train", *RUN])),
    Row("research run train, the same", "8 s", "<= 1", partial(within, 8.0, ["run", "train", *RUN])),
    Row(TRAIN, "import torch", "<= 1.9", partial(against_torch, ["train", *RUN])),
    Row("research hooks", "0.3 s", "<= 1", partial(within, 0.3, ["hooks"])),
    Row("research runs", "0.25 s", "<= 1", partial(within, 0.25, ["runs"])),
]

if __name__ == "__main__":
    main(ROWS, __doc__)
