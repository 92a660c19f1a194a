"""What a person sees of runs that go at the same time: how far all are, and on a terminal a line for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from research.runs.paths import RunPaths
from research.runs.pulse import read_pulses
from research.runs.status import recorded
from research.studies.study import Point
from research.terminal import bar_interval, output_kind

MOST_LINES = 16  # of runs that go: more would push the others off a screen


class Show:
    """A bar over the epochs of ``points`` with runs an hour and the time left; use as a context manager."""

    def __init__(self, points: Sequence[Point]):
        self.runs, self.settled = len(points), 0
        self.left: dict[Path, float] = {point.dir: point.epochs_left for point in points}
        self.before = dict(self.left)  # epochs to go when the sweep began
        self.lines: dict[Path, tqdm] = {}
        self.started = time.monotonic()

    def __enter__(self) -> Show:
        epochs = sum(self.left.values())
        form = "{desc} {percentage:3.0f}% |{bar}| {n:.4g}/{total} epochs [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(total=epochs, desc="sweep", mininterval=bar_interval(), smoothing=0.05, bar_format=form)
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.lines.values():
            line.close()
        self.bar.close()

    def say(self, text: str) -> None:
        self.bar.write(text)

    def done(self, point: Point, text: str) -> None:
        """``point`` has ended for good."""
        self.settled += 1
        self.left[point.dir] = 0
        self.say(text)

    def look(self, running: Sequence[Point], failed: int) -> None:
        """Bring all up to date."""
        for ended in self.lines.keys() - {point.dir for point in running}:
            self.lines.pop(ended).close()
        for point in running:
            step, steps = steps_of(point)
            if steps:
                epochs = point.config.total_epochs
                self.left[point.dir] = min(self.before[point.dir], epochs * (1 - step / steps))
                self._line(point, step, steps)
        self.bar.n = sum(self.before.values()) - sum(self.left.values())
        hours = (time.monotonic() - self.started) / 3600
        rate = f", {self.settled / hours:.3g} runs/h" if self.settled else ""
        self.bar.set_postfix_str(f"{self.settled}/{self.runs} runs, {failed} failed{rate}", refresh=False)
        self.bar.update(0)

    def _line(self, point: Point, step: int, steps: int) -> None:
        """A line of its own for a run, on a terminal."""
        if point.dir not in self.lines:
            if output_kind() != "terminal" or len(self.lines) == MOST_LINES:
                return
            free = min(set(range(1, MOST_LINES + 1)) - {-line.pos for line in self.lines.values()})
            self.lines[point.dir] = tqdm(
                total=steps, initial=step, desc=point.dir.name, unit="step", position=free, leave=False
            )
        self.lines[point.dir].n = step
        self.lines[point.dir].update(0)


def steps_of(point: Point) -> tuple[int, int]:
    """Optimizer steps that the run of ``point`` has done, as it tells while it trains, and those it will do."""
    said = recorded(point.dir)
    told = [place.step for place in read_pulses(RunPaths(point.dir).session).values()]
    return max([said.get("step", 0), *told]), said.get("steps", 0)


def outcome(point: Point) -> str:
    best = recorded(point.dir).get("best_top1")
    return "" if best is None else f"  best top-1 {best:.2f} %"
