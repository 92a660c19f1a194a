"""The files of a run: the only place that spells their names."""

from __future__ import annotations

import os
from pathlib import Path

from research.config import Config
from research.files import free_name


def home_of(config: Config) -> Path:
    """The folder of the run that ``config`` defines, or one that an earlier version made for it; it need not exist."""
    runs = Path(config.runs).resolve()
    home = runs / config.run_name
    if not home.exists():
        home = next((earlier for name in config.earlier_run_names() if (earlier := runs / name).exists()), home)
    return home


class RunPaths:
    """The files of the run in ``dir``; none is read or created."""

    def __init__(self, directory: str | os.PathLike):
        self.dir = Path(directory)
        self.config = self.dir / "config.json"  # every parameter; a folder with this file is a run
        self.environment = self.dir / "env.json"  # versions, code and machine of every session
        self.status = self.dir / "status.json"  # how far, and how it ended
        self.metrics = self.dir / "metrics.jsonl"  # one JSON object a row, append-only
        self.checkpoints = self.dir / "checkpoint"  # folder of the newest checkpoints
        self.best = self.dir / "best.safetensors"  # the weights that evaluated best
        self.average = self.dir / "ema.safetensors"  # the moving average of the weights
        self.output = self.dir / "log.txt"  # what the processes printed
        self.notebook = self.dir / "notebook.ipynb"  # the executed notebook
        self.multipliers = self.dir / "gram"  # folder of GraM's measurements
        self.lock = self.dir / ".lock"  # held by the process that trains; the operating system frees it
        self.launcher_lock = self.dir / ".launcher.lock"  # held by the launcher that started it, likewise
        self.session = self.dir / ".session"  # folder of what the processes leave for each other while they train

    def set_aside(self) -> Path:
        """A free folder name for the files that a run had before it was started over."""
        return free_name(self.dir / "before-start-over")

    def multipliers_of(self, epoch: int) -> Path:
        """GraM's measurement before epoch ``epoch`` (0-based)."""
        return self.multipliers / f"epoch_{epoch:03d}.npz"
