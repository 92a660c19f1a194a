"""The runs of a study started, followed, and tried again, as many at a time as the machine holds."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from research.config.config import CHECKED
from research.launcher.warm import Command, Server, Started
from research.processes import DIE_WITH_PARENT, terminate_all
from research.studies.shares import Machine, Share
from research.studies.show import Show, outcome
from research.studies.study import Point

POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0  # for the checkpoints, when a sweep is interrupted
MISTAKE, STOPPED = 2, 130  # exit codes of a run that a user must mend, and of one that was asked to stop
PRELOADED = (
    "research.cli.run research.notebooks.execute research.notebooks.kernel papermill ipykernel_launcher "
    "ipykernel.kernelapp ipykernel.zmqshell research.launcher.launch research.training.worker research.frames "
    "research.figures matplotlib.backends.backend_agg matplotlib.backends.backend_pdf fontTools.subset torch._dynamo "
    "research.data.pixel_kernels research.measures.nmi_compiled"
).split()
"""What a notebook that trains imports; PyTorch's first optimizer imports ``torch._dynamo``."""


@dataclass
class Execution:
    """Runs ``points`` in their order, each through ``notebook``, once what it starts from has been trained.

    A run that fails is tried again ``retry`` times, after all others: from its last checkpoint, as ever. What a user
    must mend fails again, and what somebody stopped was meant to stop; both are left alone.
    """

    notebook: str
    points: Sequence[Point]
    machine: Machine
    server: Server
    retry: int = 0
    failed: list[Point] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._queue = list(self.points)
        self._running: list[tuple[Point, Started, Share]] = []
        self._tries = {point.dir: 1 + self.retry for point in self.points}
        self._awaited = {point.dir: awaited(point, self.points) for point in self.points}

    def run(self) -> list[Point]:
        """Run all; the points that failed. However this ends, nothing runs any more."""
        with Show(self.points) as show:
            try:
                while self._queue or self._running:
                    self._start(show)
                    for each in [each for each in self._running if each[1].poll() is not None]:
                        self._settle(*each, show)
                    show.look([point for point, *_ in self._running], len(self.failed))
                    time.sleep(POLL_SECONDS)
            finally:
                terminate_all([process for _, process, _ in self._running], GRACE_SECONDS)
        return self.failed

    def _start(self, show: Show) -> None:
        open_ones = {point.dir for point in self._queue} | {point.dir for point, *_ in self._running}
        failed = {point.dir for point in self.failed}
        for point in list(self._queue):
            if self.machine.is_full:
                return
            if lost := self._awaited[point.dir] & failed:
                self._queue.remove(point)
                self._fail(point, f"it starts from {min(lost).name}, which failed", show)
            elif self._awaited[point.dir] & open_ones or (status := point.status["status"]) == "running":
                continue  # what it starts from is trained first; or another process, of another sweep, trains it now
            elif status == "finished":
                self._queue.remove(point)
                show.done(point, f"finished {point.dir.name} elsewhere{outcome(point)}")
            elif share := self.machine.take(point.config):
                self._queue.remove(point)
                self._running.append((point, start(self.server, self.notebook, point, share), share))

    def _settle(self, point: Point, process: Started, share: Share, show: Show) -> None:
        self._running.remove((point, process, share))
        self.machine.give_back(share)
        self._tries[point.dir] -= 1
        if not process.returncode:
            show.done(point, f"finished {point.dir.name}{outcome(point)}")
        elif self._tries[point.dir] and process.returncode not in (MISTAKE, STOPPED):
            self._queue.append(point)
            show.say(f"again    {point.dir.name}: {reason(point)}")
        else:
            self._fail(point, reason(point), show)

    def _fail(self, point: Point, why: str, show: Show) -> None:
        self.failed.append(point)
        show.done(point, f"FAILED   {point.dir.name}: {why}")


def awaited(point: Point, points: Sequence[Point]) -> set[Path]:
    """The folders of those ``points`` that ``point`` starts from."""
    from research.training.sources import places  # torch takes seconds

    needed = {folder for place in places(point.config) for folder in (place, *place.parents)}
    return {other.dir for other in points if other is not point} & needed


def start(server: Server, notebook: str, point: Point, share: Share) -> Started:
    """``research run`` for one point, in a session of its own; what it prints goes to the point's log."""
    point.log.parent.mkdir(parents=True, exist_ok=True)
    point.log.write_bytes(b"")
    environment = os.environ | share.environment | {DIE_WITH_PARENT: "SIGTERM", CHECKED: "1"}
    return server.start(Command("research", ["run", notebook, *point.words], environment, point.log))


def reason(point: Point) -> str:
    """Why a point failed, in one line: what its run says, else the last line it printed."""
    printed = point.log.read_text(errors="replace").strip() if point.log.exists() else ""
    said = point.status.get("message") or printed
    return said.splitlines()[-1] if said else "no output"
