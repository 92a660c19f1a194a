"""Run: one directory under runs/. Identity, status, metrics, random streams, and the live state of training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.files import free_name, read_json, write_atomic
from research.plugins.source import keep, remember
from research.runs.environment import environment
from research.runs.metrics import read_rows
from research.runs.paths import RunPaths, home_of
from research.runs.pulse import Pulse
from research.runs.status import DIVERGED, recorded, status_of

if TYPE_CHECKING:
    from research.data.choice import Loader
    from research.data.mixing import Mixing
    from research.hooks import Hook
    from research.layers.substitute import Report
    from research.resources import Resources


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The differences between two configurations that make them two experiments."""
    names = [name for name in new if old.get(name) != new[name] and name not in NOT_IDENTITY]
    return "; ".join(f"{name}: {old.get(name)} there, {new[name]} asked" for name in names)


class Run:
    """A run on disk and, while it trains, its live state. Hooks may read all of it, and write what
    :class:`research.hooks.base.Hook` lists.

    Random numbers: there is no generator whose state could be lost. Every draw comes from a stream named by what it
    is for, seeded from the run's seed, so a resumed run draws what the uninterrupted one would have drawn.
    """

    # live state, set by train.fit
    model: nn.Module  # the network itself; hooks may change or replace it in build
    substitution: Report | None  # which layers were put in place of others
    network: nn.Module  # what the loop calls: the model, compiled and wrapped as configured
    optimizer: torch.optim.Optimizer
    criterion: Any  # (logits, targets) -> mean loss; hooks may replace it in setup
    autocast: torch.autocast
    scaler: torch.amp.GradScaler
    mixing: Mixing  # of the images of a step with each other
    train_loader: Loader
    val_loader: Loader
    hooks: dict[str, Hook]
    began_with: list[str]  # notes of what its weights began with, where they were not drawn
    sources: dict[Hook, dict[str, Any]]  # what they start from, see research.hooks.base.Source
    device: torch.device
    inputs: Tensor  # of the current micro-batch
    logits: Tensor
    targets: Tensor
    skipped: Tensor | None = None  # 1.0 where this step's update is, on the device; none without a loss scale
    rank: int = 0
    world: int = 1
    resources: Resources | None = None  # what this process works with: handed to it, or decided when it prepares
    steps_per_epoch: int
    epochs: int  # all of them, cool-down included
    epoch: int = 0  # 0-based
    first_epoch: int = 0  # of this run: more where it continues another one
    batch: int = 0  # optimizer steps done in this epoch
    step: int = 0  # optimizer steps done in all
    best_top1: float = -math.inf  # percent, on the validation set
    last_top1: float | None = None  # after the newest epoch
    saved_at: float = 0.0  # time.monotonic() of the last checkpoint
    tabled_at: float = 0.0  # and of the last summary.csv
    evaluation_seconds: float = 0.0  # of the last evaluation in this session
    pulse: Pulse = Pulse()  # where this process stands, for who watches it

    made = False  # whether this object made the directory

    def __init__(self, directory: str | os.PathLike, config: Config):
        self.dir = Path(directory)
        self.paths = RunPaths(self.dir)
        self.config = config

    # -- the directory ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: Config) -> Run:
        """The run that ``config`` defines: made now, or the existing one of the same identity.

        Raises:
            UsageError: the directory exists and holds something else.
        """
        run = cls(home_of(config), config)
        run.refuse_another()
        text = json.dumps(config.to_dict(), indent=2) + "\n"
        try:
            run.dir.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                run.dir.mkdir()
                run.made = True
            keep(config.plugin, run.paths.plugins)
            if not run.paths.config.exists() or run.paths.config.read_text() != text:
                write_atomic(run.paths.config, text)
        except OSError as error:
            run.remove_unbegun()
            raise UsageError(f"cannot write run directory {run.dir}: {error.strerror}; choose another runs=…") from None
        return run

    def remove_unbegun(self) -> None:
        """Remove the directory if this object made it and nothing but what a start writes is in it."""
        if self.made and self.is_unbegun():
            shutil.rmtree(self.paths.plugins, ignore_errors=True)
            for path in self.start_files() - {self.paths.plugins}:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # another has put something in it meanwhile
                self.dir.rmdir()

    def is_unbegun(self) -> bool:
        """Whether the directory is there, has seen no step, and holds nothing but what a start writes."""
        if not self.dir.is_dir() or "step" in recorded(self.dir):
            return False
        return set(self.dir.iterdir()) <= self.start_files()

    def start_files(self) -> set[Path]:
        """The files that a start writes before the first step."""
        paths = self.paths
        written = {
            paths.plugins,
            paths.config,
            paths.status,
            paths.environment,
            paths.output,
            paths.lock,
            paths.launcher_lock,
        }
        only_notes = all(row["kind"] == "note" for row in read_rows(paths.metrics))
        return written | ({paths.metrics} if only_notes else set())

    @classmethod
    def open(cls, directory: str | os.PathLike) -> Run:
        """The run in ``directory``."""
        path = RunPaths(directory).config
        try:
            given = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"{directory} is not a run: it has no config.json") from None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise UsageError(f"{path} does not hold the parameters of a run")
        remember(given.get("plugin") or (), RunPaths(directory).plugins)
        return cls(directory, Config.stored(given))

    def refuse_another(self) -> None:
        """Raise UsageError if the directory holds anything but this run; only reads."""
        if not self.paths.config.exists():
            # another node may be making the same run right now: its config.json, under a hidden name at first
            if self.dir.exists() and any(
                not p.name.startswith((".", self.paths.config.name, self.paths.plugins.name))
                for p in self.dir.iterdir()
            ):
                raise UsageError(f"{self.dir} exists but is not a run (no config.json); choose another name=…")
            return
        there = Run.open(self.dir).config
        if there.identity == self.config.identity:
            return
        old, new = there.to_dict(), self.config.to_dict()
        raise UsageError(
            f"run directory {self.dir} belongs to another configuration ({differences(old, new)}); "
            "choose another name=…"
        )

    @property
    def name(self) -> str:
        return self.dir.name

    @contextmanager
    def alone(self, patience: float = 10.0) -> Iterator[None]:
        """Hold the run for one training at a time; the operating system frees it however this process ends.

        Waits up to ``patience`` seconds for another process to exit, which may just have been killed.
        """
        if self.rank:
            yield
            return
        with self._locked(self.paths.lock, patience):
            yield

    @contextmanager
    def launched_alone(self) -> Iterator[None]:
        """Hold the run for one launcher of this machine at a time, from before its processes start until they ended."""
        with self._locked(self.paths.launcher_lock, patience=0.5):  # longer than a look at the status
            yield

    @contextmanager
    def _locked(self, path: Path, patience: float) -> Iterator[None]:
        lock = FileLock(path, timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(f"run {self.name} is being trained by another process") from None
        except OSError as error:
            what = "it is a link; remove it" if path.is_symlink() else error.strerror
            raise UsageError(f"cannot lock {path}: {what}") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def row_due(self) -> bool:
        """Whether a row of metrics ends with the step just done; only then do several ranks take checkpoints."""
        return self.batch == self.steps_per_epoch or self.step % self.config.log_interval == 0

    # -- status and metrics, written by rank 0 ------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        """How far the run is and how it ended, see :func:`research.runs.status.status_of`."""
        return status_of(self.dir)

    def set_status(self, status: str, **more: Any) -> None:
        kept = {k: v for k, v in recorded(self.dir).items() if k not in ("message", "traceback", "usage")}
        now = {"status": status, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_atomic(self.paths.status, json.dumps(kept | now | more, indent=2) + "\n")

    def log(self, kind: str, **values: Any) -> None:
        """Append one row to ``metrics.jsonl``; numbers that JSON lacks (nan, inf) become null."""
        if self.rank:
            return
        row = {"kind": kind, "step": self.step, "epoch": self.epoch}
        row |= {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with open(self.paths.metrics, "a") as file:
            file.write(json.dumps(row) + "\n")  # one write of one line: a reader sees whole rows

    def note(self, text: str) -> None:
        """Tell the user something: a row of the metrics, which a launcher shows, and a line of this process."""
        if self.rank == 0:
            self.log("note", text=text)
            print(text, flush=True)

    def diverged(self, what: str, step: int) -> UsageError:
        """The error that ends a run whose ``what`` is no longer finite."""
        return UsageError(
            f"{what} at step {step} (epoch {self.epoch}) of run {self.name}; {DIVERGED}: lower lr={self.config.lr:g}, "
            "or set warmup_epochs or clip_norm"
        )

    def record_environment(self) -> None:
        """Add this session's versions and machine to ``env.json``."""
        if self.rank:
            return
        path = self.paths.environment
        sessions = read_json(path, None) if path.exists() else []
        if not isinstance(sessions, list):
            aside, sessions = free_name(path.with_name(f"damaged-{path.name}")), []
            path.rename(aside)
            self.note(f"{path.name} was damaged and is now {aside.name}; sessions are listed from this one on")
        write_atomic(path, json.dumps([*sessions, environment(self.device, self.world)], indent=2) + "\n")

    # -- random streams -----------------------------------------------------------------------------------------

    def seed_for(self, *names: object, seed: int | None = None) -> int:
        """A seed (63 bits) for the stream called ``names``, equal on every rank, machine and Python.

        It comes from ``seed``, or from the run's own.
        """
        text = "\0".join(map(str, (self.config.seed if seed is None else seed, *names)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1

    def generator(self, *names: object) -> torch.Generator:
        """A CPU generator for what a method draws as ``names`` at this step: equal on all ranks and after a resume."""
        return torch.Generator().manual_seed(self.seed_for("generator", self.step, *names, seed=self.config.mask_seed))

    def seed_everything(self, *names: object) -> None:
        """Seed the global generators of Python, NumPy and torch for the stream called ``names``."""
        seed = self.seed_for(*names)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace for every idle accelerator
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)
