"""Whether the processes of a run still move: who watches from outside sees a rank that hangs."""

from __future__ import annotations

import time

from research.errors import Failure
from research.runs.pulse import DONE, EVALUATING, IN_STEP, STAGES, Place, read_pulses
from research.runs.run import Run

FIRST = 10  # times as long may take what compiles, starts, or measures between steps
LONGEST_LOOK = 5.0  # seconds that one look may count: a machine that slept, or a stopped launcher, proves nothing


class Hung(Failure):
    """No process of a run has moved for too long; the message names the rank that is behind, and its last step."""


class Watch:
    """Looks at the places of all ranks; any that moved is a sign of life of all, because they wait for each other."""

    def __init__(self, run: Run):
        self.folder, self.limit = run.paths.session, 60 * run.config.hang_minutes
        self.stale = read_pulses(self.folder)  # of earlier processes
        self.places: dict[int, Place] = {}
        self.still, self.looked = 0.0, time.monotonic()

    def look(self) -> None:
        """Raise :class:`Hung` when nothing has moved for ``hang_minutes``."""
        now = time.monotonic()
        if not self.limit:
            return
        self.still += min(now - self.looked, LONGEST_LOOK)
        self.looked = now
        places = {rank: place for rank, place in read_pulses(self.folder).items() if place != self.stale.get(rank)}
        if places != self.places:
            self.places, self.still = places, 0.0
        if self.still > self.limit * (1 if self.stepping() else FIRST):
            raise Hung(self.describe())

    def stepping(self) -> bool:
        """Whether the rank that is behind is between two steps, or two batches of an evaluation, after a first one."""
        behind = min(self.places.values(), default=None)
        if behind is None or not behind.session:
            return False
        return behind.stage in (DONE, IN_STEP) or (behind.stage == EVALUATING and behind.part > 0)

    def describe(self) -> str:
        """Which ranks are behind, since when, and where."""
        minutes = f"{self.still / 60:.3g} minutes"
        if not self.places:
            return f"no process has begun within {minutes}; ended"
        place = min(self.places.values())
        ranks = [str(rank) for rank, at in sorted(self.places.items()) if at == place]
        who = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(ranks)}"
        return f"{who} made no step for {minutes} (last step {place.step}, {STAGES[place.stage]}); ended as hung"
