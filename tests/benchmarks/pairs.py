"""Two ways of doing the same, taken in turn: the ratio of what they cost, and what one costs against itself.

Every program of ``make bench`` declares ``ROWS``, each with a subject, its rival, an aim and a function that prepares
both ways, and ends in ``main(ROWS, __doc__)``, which measures and prints them one by one:

    ROWS = [Row("loss of 1,024 x 1,000", "F.cross_entropy", "<= 1.15", lambda small: Ways(ours, theirs))]

Costs are CPU time of this process and of the processes that it started: on a shared machine time by the clock tells
nothing. Each pair runs ours, theirs and ours again, so that a drift hurts both alike; the two of ours are the noise,
"A/A" in the tables.
"""

from __future__ import annotations

import argparse
import re
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, process_time
from typing import Any, NamedTuple

import numpy as np

SPAN = 0.1  # seconds that a measurement takes at least: short calls are repeated
FEWEST, MOST = 3, 25  # pairs


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of ``work``, with those of the processes that it started and waited for."""
    started = process_time(), _of_children()
    work()
    return process_time() - started[0] + _of_children() - started[1]


def peak_memory() -> float:
    """The most memory that this process has had, in MB; ``ru_maxrss`` also counts what started it."""
    return int(re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]) * 1024 / 1e6


def told(work: Callable[[], float]) -> float:
    """What ``work`` returns, such as bytes."""
    return work()


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Alone:
    """A way in a process of its own, as a run is; each call returns the CPU seconds that it took there.

    ``prepare(*given)`` makes there what is called; what it raises is raised here by the first call.
    """

    def __init__(self, prepare: Callable[..., Callable[[], Any]], *given: Any):
        processes = get_context("spawn")
        self.pipe, there = processes.Pipe()
        processes.Process(target=_serve, args=(there, prepare, given), daemon=True).start()

    def __call__(self) -> float:
        return self._asked("seconds")

    def peak(self) -> float:
        """The most memory that the process has had, in MB."""
        return self._asked("peak")

    def _asked(self, question: str) -> float:
        self.pipe.send(question)
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, prepare: Callable[..., Callable[[], Any]], given: tuple) -> None:
    import torch  # the programs have it already

    torch.set_num_threads(1)
    try:
        work, failure = prepare(*given), None
        work()  # compiles and fills caches
    except Exception as error:
        failure = RuntimeError(f"{type(error).__name__}: {error}")  # the error itself may not travel
    with suppress(EOFError):  # until the process that asks has ended
        while question := pipe.recv():
            if question == "peak":
                pipe.send(peak_memory())
            else:
                pipe.send(failure or cpu_seconds(work))


class Ways(NamedTuple):
    """What is compared. ``theirs`` is the rival, or a limit on what a call of ``ours`` costs."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any] | float
    before: Callable[[], object] | None = None  # each call, and not counted
    more: float = 1.0  # work that a call of ours does, in calls of theirs
    cost: Callable[[Callable[[], Any]], float] = cpu_seconds


@dataclass(frozen=True)
class Row:
    """A comparison. ``aim`` is ``">= 3"``, times as fast as the rival, or ``"<= 1.05"``, of the rival's cost."""

    subject: str
    rival: str
    aim: str
    ways: Callable[[bool], Ways]  # given True it prepares the smallest that still runs all code
    needs: str = ""  # the module of a rival that may be missing
    unit: str = "s"

    def met(self, ratio: float) -> bool:
        sign, value = self.aim.split()
        return ratio >= float(value) if sign == ">=" else ratio <= float(value)


def measure(row: Row, seconds: float, small: bool) -> dict[str, Any]:
    """One row of the results: the ratio with its spread and noise, or why there is none.

    ``spread`` are the 10th and 90th percentile over pairs, ``noise`` those of ours against itself. Pairs are taken for
    ``seconds``, at least three.
    """
    found = {name: getattr(row, name) for name in ("subject", "rival", "aim", "unit")}
    found |= dict.fromkeys(("ratio", "spread", "noise", "ours", "theirs", "pairs", "met", "missing"))
    if row.needs and find_spec(row.needs) is None:
        return found | {"missing": f"{row.needs} is not installed"}
    try:
        ours, theirs = costs(row.ways(small), seconds)
    except Exception as error:  # whatever it is, the other rows are measured
        return found | {"missing": f"failed: {type(error).__name__}: {error}".partition("\n")[0]}
    ratios = ours.mean(1) / theirs if row.aim.startswith("<=") else theirs / ours.mean(1)
    ratio = float(np.median(ratios))
    found |= {"ratio": ratio, "spread": _percentiles(ratios), "noise": _percentiles(ours[:, 1] / ours[:, 0])}
    found |= {"ours": float(np.median(ours)), "theirs": float(np.median(theirs))}
    return found | {"pairs": len(ratios), "met": row.met(ratio)}


def costs(ways: Ways, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """What a call costs in every pair: ours [pairs, 2], theirs [pairs] for the work that a call of ours does.

    In every other pair ours are swapped: the one after a rival finds other things in the caches.
    """

    def cost(work: Callable[[], Any], calls: int) -> float:
        if ways.before is None:
            return ways.cost(lambda: [work() for _ in range(calls)]) / calls if calls > 1 else ways.cost(work)
        total = 0.0
        for _ in range(calls):
            ways.before()
            total += ways.cost(work)
        return total / calls

    def calls_of(work: Callable[[], Any]) -> int:
        if ways.cost is not cpu_seconds or cost(work, 1) > 10 * SPAN:  # the first call compiles and fills caches
            return 1
        return max(1, ceil(SPAN / max(1e-6, cost(work, 1))))

    limit = not callable(ways.theirs)
    number = calls_of(ways.ours), 0 if limit else calls_of(ways.theirs)
    ours, theirs, deadline = [], [], monotonic() + seconds
    while len(ours) < FEWEST or (len(ours) < MOST and monotonic() < deadline):
        around = [cost(ways.ours, number[0])]
        theirs.append(ways.theirs if limit else ways.more * cost(ways.theirs, number[1]))
        around.append(cost(ways.ours, number[0]))
        ours.append(around if len(theirs) % 2 else around[::-1])
    return np.array(ours), np.array(theirs)


def _percentiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.1, 0.9])]


HEAD = f"{'':52s} {'against':34s} {'ratio':>6s} {'p10 to p90':>14s} {'A/A':>14s}  {'aim':8s}"


def line(found: dict[str, Any]) -> str:
    """A row of results for the terminal."""
    named = f"{found['subject']:52s} {found['rival']:34s}"
    if found["missing"]:
        return f"{named} {found['missing']}"
    spread, noise = ("{:.3g} to {:.3g}".format(*found[name]) for name in ("spread", "noise"))
    outcome = "met" if found["met"] else "MISSED"
    return f"{named} {found['ratio']:6.3g} {spread:>14s} {noise:>14s}  {found['aim']:8s} {outcome}"


def measured(rows: Sequence[Row], seconds: float, small: bool) -> list[dict[str, Any]]:
    """All ``rows``, each printed as soon as it is known."""
    import torch  # the programs have it already

    torch.set_num_threads(1)
    found = []
    for row in rows:
        found.append(measure(row, seconds, small))
        print(line(found[-1]), flush=True)
    return found


def main(rows: Sequence[Row], description: str) -> None:
    """The command line of a program."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="that pairs of a row are taken for; at least 3 are")
    parser.add_argument("--small", action="store_true", help="the smallest form, to see that all runs")
    parser.add_argument("--only", default="", help="part of the subjects to measure")
    given = parser.parse_args()
    print(HEAD)
    measured([row for row in rows if given.only in row.subject], given.seconds, given.small)
