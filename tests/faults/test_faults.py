"""Faults, injected in one place; see ``trials.py`` for what happens and what must come of it.

``make faults`` runs 1,000 trials (``TRIALS=100`` fewer, ``SEED=7`` others) and prints the table; a handful runs always.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from injection import Process  # noqa: E402
from trials import IDENTICAL, REFUSED, TOLD, TRIALS, UNTRIED  # noqa: E402

LOST = "lost"
ALWAYS = (
    "kill 9 of training at a touch of the disk",
    "signal to training",
    "damaged checkpoint",
    "damaged metrics",
    "full disk",
    "signal to one of two processes",
    "rank that hangs",
)
SECONDS = 300.0  # for one trial


def outcome(name: str, seed: int, folder: Path) -> str:
    """The outcome of one trial, in a process of its own; ``lost: …`` with the reason."""
    folder.mkdir(parents=True)
    told = folder / "outcome"

    def work():
        told.write_text(TRIALS[name][1](Random(seed), folder))

    ended = Process(work).wait(SECONDS)
    if ended.code == 0:
        found = told.read_text()
        shutil.rmtree(folder, ignore_errors=True)
        return found
    return f"{LOST}: {name}, seed {seed}, {folder}: {ended}"


@pytest.mark.parametrize("name", ALWAYS)
def test_nothing_finished_is_lost(name, tmp_path):
    found = outcome(name, 0, tmp_path / "trial")
    if found == UNTRIED:
        pytest.skip("this fault cannot be made here: it takes a file system to be mounted")
    assert found in (IDENTICAL, TOLD, REFUSED)


@pytest.mark.faults
def test_a_thousand_faults(tmp_path, capsys):
    count, first = int(os.environ.get("TRIALS", 1000)), int(os.environ.get("SEED", 0))
    names = [name for name, (share, _) in TRIALS.items() for _ in range(max(1, round(share * count / 1000)))]
    Random(first).shuffle(names)
    started = time.monotonic()
    with capsys.disabled():
        results = in_parallel([(name, first + seed, tmp_path / str(seed)) for seed, name in enumerate(names)])
        print(table(results), f"\n{len(results)} trials in {(time.monotonic() - started) / 60:.0f} minutes", sep="\n")
    assert [found for _, found in results if found.startswith(LOST)] == []


def in_parallel(waiting: list[tuple[str, int, Path]]) -> list[tuple[str, str]]:
    """The outcomes of trials, as many at a time as there are cores."""
    jobs, running, results = len(os.sched_getaffinity(0)), {}, []
    while waiting or running:
        while waiting and len(running) < jobs:
            name, seed, folder = waiting.pop()
            told = folder.with_suffix(".told")
            work = lambda given=(name, seed, folder), told=told: told.write_text(outcome(*given))  # noqa: E731
            running[name, seed] = Process(work), told
        for (name, seed), (process, told) in list(running.items()):
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ended = process.wait()
                found = told.read_text() if told.exists() else f"{LOST}: {name}, seed {seed}: {ended}"
                results.append((name, found))
                del running[name, seed]
                if found.startswith(LOST):
                    print(found, flush=True)
        time.sleep(0.01)
    return results


def table(results: list[tuple[str, str]]) -> str:
    """Trials by kind: how many, and how they ended."""
    columns = (IDENTICAL, TOLD, REFUSED, UNTRIED, LOST)
    counts = {name: Counter(LOST if o.startswith(LOST) else o for n, o in results if n == name) for name in TRIALS}
    counts["all"] = sum(counts.values(), Counter())
    width = max(map(len, counts))
    lines = ["\n" + "fault".ljust(width) + "  trials" + "".join(f"  {column}" for column in columns)]
    for name, found in counts.items():
        cells = "".join(f"  {found[column]:>{len(column)}}" for column in columns)
        lines.append(f"{name.ljust(width)}  {found.total():>6}{cells}")
    return "\n".join(lines)
