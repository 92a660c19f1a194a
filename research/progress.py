"""A run's rows as a person wants to see them: a bar with rate and ETA, a line per epoch, or a live curve."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

from research.run import Run


def place() -> str:
    """Where output goes: ``"notebook"`` (JupyterLab and the like), ``"terminal"``, or ``"text"`` (papermill, files)."""
    if "ipykernel" in sys.modules:
        # set by Jupyter servers for the kernels of their sessions; papermill starts kernels without it
        return "notebook" if "JPY_SESSION_NAME" in os.environ and "RESEARCH_HEADLESS" not in os.environ else "text"
    return "terminal" if sys.stderr.isatty() else "text"


class Progress:
    """Shows the rows of ``run`` as they come; use as a context manager around the following of a run."""

    def __init__(self, run: Run, images: int):
        from research.schedule import total_epochs

        self.run = run
        self.epochs = total_epochs(run.config)
        self.steps_per_epoch = images // run.config.batch_size
        self.steps = self.epochs * self.steps_per_epoch
        self.place = place()
        self.first_step: int | None = None
        self.started = time.monotonic()
        self.train: dict = {}
        self.history: list[dict] = []

    def __enter__(self) -> Progress:
        if self.place == "notebook":
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
        silent = self.place == "text"
        self.bar = tqdm(total=self.steps, unit="step", desc=self.run.name, disable=silent, smoothing=0.1)
        if silent:
            print(f"{self.run.name}: {self.epochs} epochs of {self.steps_per_epoch} steps", flush=True)
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def show(self, row: dict) -> None:
        """Take one row of ``metrics.jsonl``; ``{}`` only refreshes."""
        if not row:
            self.bar.refresh()
            return
        if self.first_step is None:
            self.first_step = 0 if row["step"] <= self.steps_per_epoch else row["step"]
            self.bar.initial = self.bar.n = self.first_step
        if row["split"] == "note":
            self.say(row["text"])
        elif row["split"] == "train":
            self.train = row
            self.bar.n = row["step"]
            self.bar.set_postfix({"loss": f"{row['loss']:.3f}", "top1": f"{row['top1']:.1f}%"})
        elif row["split"] == "epoch":
            self.train = row
        elif row["split"] == "val":
            self.history.append({"train": self.train, "val": row})
            self.say(self.epoch_line(row))
            if self.place == "notebook":
                self.draw()

    def say(self, text: str) -> None:
        print(text, flush=True) if self.place == "text" else self.bar.write(text)

    def epoch_line(self, val: dict) -> str:
        done = val["step"] - (self.first_step or 0)
        left = (self.steps - val["step"]) * (time.monotonic() - self.started) / max(1, done)
        return (
            f"epoch {val['epoch'] + 1}/{self.epochs}  train loss {self.train['loss']:.4f} top-1 {self.train['top1']:.2f} %  "
            f"val loss {val['loss']:.4f} top-1 {val['top1']:.2f} %  {self.train['images_per_second']:,.0f} images/s  "
            f"left {timedelta(seconds=round(left))}"
        )

    def draw(self) -> None:
        """Redraw the live curve below the bar."""
        from IPython.display import display

        from research.figures import live_curve

        figure = live_curve(self.history)
        if not hasattr(self, "handle"):
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
