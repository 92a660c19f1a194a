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


class _File:
    """A file of a run; its path is made when it is asked for, because whoever reads thousands of runs asks for few."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, paths: RunPaths, owner: type[RunPaths]) -> Path:
        return paths.dir / self.name


class RunPaths:
    """The files of the run in ``dir``; none is read or created."""

    config = _File("config.json")  # every parameter; a folder with this file is a run
    plugins = _File("plugins")  # folder of the plugins as they were when the run was made
    environment = _File("env.json")  # versions, code and machine of every session
    status = _File("status.json")  # how far, and how it ended
    metrics = _File("metrics.jsonl")  # one JSON object a row, append-only
    summary = _File("summary.csv")  # one line an epoch, made of the metrics
    checkpoints = _File("checkpoint")  # folder of the newest checkpoints
    best = _File("best.safetensors")  # the weights that evaluated best
    average = _File("ema.safetensors")  # the moving average of the weights
    output = _File("log.txt")  # what the processes printed
    notebook = _File("notebook.ipynb")  # the executed notebook
    multipliers = _File("gram")  # folder of GraM's measurements
    lock = _File(".lock")  # held by the process that trains; the operating system frees it
    launcher_lock = _File(".launcher.lock")  # held by the launcher that started it, likewise
    session = _File(".session")  # folder of what the processes leave for each other while they train

    def __init__(self, directory: str | os.PathLike):
        self.dir = Path(directory)

    def set_aside(self) -> Path:
        """A free folder name for the files that a run had before it was started over."""
        return free_name(self.dir / "before-start-over")

    def multipliers_of(self, epoch: int) -> Path:
        """GraM's measurement before epoch ``epoch`` (0-based)."""
        return self.multipliers / f"epoch_{epoch:03d}.npz"


NAMES = frozenset(file.name for file in vars(RunPaths).values() if isinstance(file, _File))
"""What the files and folders of a run are called."""
