"""A run's rows as a person wants to see them: a bar with rate and ETA, a line per epoch, or a live curve."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from research.terminal import output_kind

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
    """Shows the rows of ``run`` as they come; use as a context manager around the following of a run."""

    def __init__(self, run: Run, images: int):
        self.run = run
        self.epochs = run.config.total_epochs
        self.steps_per_epoch = images // run.config.batch_size
        self.steps = self.epochs * self.steps_per_epoch
        self.output = output_kind()
        self.before = run.status.get("step", 0)  # done in earlier sessions
        self.started = self.spoke = time.monotonic()
        self.train: dict = {}

    def __enter__(self) -> Progress:
        if self.output == "notebook":
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
        silent = self.output == "text"
        self.bar = tqdm(total=self.steps, initial=self.before, unit="step", desc=self.run.name, disable=silent)
        if silent:
            epochs = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
            print(f"{self.run.name}: {epochs} of {self.steps_per_epoch} steps", flush=True)
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def show(self, row: dict) -> None:
        """Take one row of ``metrics.jsonl``; ``{}`` only keeps the clock moving."""
        kind = row.get("kind")
        if kind is None:
            self.bar.refresh()
        elif kind == "note":
            self.say(str(row.get("text", "")))
        elif kind == "train":
            self.train = row
            self.bar.n = row["step"]
            self.bar.set_postfix(loss=number(row, "loss", ".3f"), top1=f"{number(row, 'top1', '.1f')}%")
            if self.output == "text" and time.monotonic() - self.spoke > QUIET_SECONDS:
                self.say(f"step {row['step']}/{self.steps}  {self.rates(row)}")
        elif kind == "train_epoch":
            self.train = row
        elif kind == "val":
            trained = f"train {result(self.train)}" if self.train else ""
            self.say(f"epoch {row['epoch'] + 1}/{self.epochs}  {trained}  val {result(row)}  {self.rates(row)}")
            if self.output == "notebook":
                self.draw()

    def rates(self, row: dict) -> str:
        done = max(1, row["step"] - self.before)
        left = (self.steps - row["step"]) * (time.monotonic() - self.started) / done
        speed = f"{number(self.train, 'images_per_second', ',.0f')} images/s  " if self.train else ""
        return f"{speed}left {timedelta(seconds=round(left))}"

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
