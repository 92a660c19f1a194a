"""A run's rows as a person wants to see them: a bar with rate and ETA, a line per epoch, or a live curve."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from research.runs.pulse import read_pulses
from research.terminal import bar_class, output_kind

if TYPE_CHECKING:
    from research.runs.run import Run

QUIET_SECONDS = 30.0  # without a bar, say something at least this often


def number(row: dict, name: str, form: str) -> str:
    """A number of a row; one that was not finite is null there."""
    value = row.get(name)
    return format(value, form) if isinstance(value, (int, float)) else "not finite"


def result(row: dict) -> str:
    return f"loss {number(row, 'loss', '.4f')} top-1 {number(row, 'top1', '.2f')} %"


class Progress:
    """Shows how far ``run`` is and its rows as they come; use as a context manager around the following of a run.

    Rates and the time left are reckoned from the first step that was made since, so that what a start takes (imports,
    data, compilation) is in neither.
    """

    def __init__(self, run: Run, images: int):
        self.run = run
        self.epochs = run.config.total_epochs
        self.steps_per_epoch = images // run.config.batch_size
        self.steps = self.epochs * self.steps_per_epoch
        self.output = output_kind()
        self.spoke = time.monotonic()
        self.begun: tuple[int, float] | None = None  # a step, and when it was first seen done
        self.train: dict = {}

    def __enter__(self) -> Progress:
        silent = self.output == "text"
        before = self.run.status.get("step", 0)  # of earlier sessions
        self.bar = bar_class()(total=self.steps, initial=before, unit="step", desc=self.run.name, disable=silent)
        if silent:
            epochs = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
            print(f"{self.run.name}: {epochs} of {self.steps_per_epoch} steps", flush=True)
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def show(self, row: dict) -> None:
        """Take one row of ``metrics.jsonl``; ``{}`` looks how far the processes are."""
        kind = row.get("kind")
        if kind is None:
            self.look()
        elif kind == "note":
            self.say(str(row.get("text", "")))
        elif kind == "train":
            self.train = row
            self.reach(row["step"])
            self.bar.set_postfix(loss=number(row, "loss", ".3f"), top1=f"{number(row, 'top1', '.1f')}%")
        elif kind == "train_epoch":
            self.train = row
        elif kind == "val":
            trained = f"train {result(self.train)}" if self.train else ""
            epoch = f"epoch {row['epoch'] + 1}/{self.epochs}"
            self.say("  ".join(filter(None, [epoch, trained, f"val {result(row)}", self.rates(row["step"])])))
            if self.output == "notebook":
                self.draw()

    def look(self) -> None:
        """Move to where the process is that is behind; rows come only every ``log_interval`` steps."""
        place = min(read_pulses(self.run.paths.session).values(), default=None)
        if place is not None and place.session:
            self.reach(place.step)
        self.bar.refresh()

    def reach(self, step: int) -> None:
        """Move the bar to ``step``; in text, say so when nothing was said for long."""
        if self.begun is None:
            self.begun = step, time.monotonic()
            self.bar.reset()
            self.bar.initial = step
        self.bar.n = step
        if self.output == "text" and time.monotonic() - self.spoke > QUIET_SECONDS:
            self.say(f"step {step}/{self.steps}  {self.rates(step)}")

    def rates(self, step: int) -> str:
        """Images a second, and the time left from ``step`` on, as far as they are known."""
        told = [f"{number(self.train, 'images_per_second', ',.0f')} images/s"] if self.train else []
        first, since = self.begun or (step, 0.0)
        if step > first:
            left = (self.steps - step) * (time.monotonic() - since) / (step - first)
            told.append(f"left {timedelta(seconds=round(left))}")
        return "  ".join(told)

    def say(self, text: str) -> None:
        self.spoke = time.monotonic()
        if self.output == "text":
            print(text, flush=True)
        else:
            self.bar.write(text)

    def draw(self) -> None:
        """Redraw the live curves below the bar."""
        from IPython.display import display

        from research.figures import loss_curves  # matplotlib takes a second
        from research.frames import load_runs

        figure = loss_curves(load_runs(self.run.dir.parent, self.run.name))
        if not hasattr(self, "handle"):
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
