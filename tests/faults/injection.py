"""Where faults are injected: work in a process of its own, and what may happen to it at which moment.

A trial forks this process, which has imported all that takes seconds and computed nothing, so that a trial costs what
its work costs. Work ends as a command would: what it refused is one line, and the exit code says how it ended.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy.random  # noqa: F401 - what training imports at its first step, here once for all trials
import torch
import torch._dynamo
import torch._inductor  # noqa: F401

from research import processes
from research.checkpoints import checkpoint
from research.config import Config
from research.data import choice
from research.errors import Failure, UsageError
from research.hooks import HOOKS, Hook
from research.runs.metrics import read_rows
from research.runs.run import Run
from research.training.loop import fit

CLOCKS = {"seconds", "images_per_second", "data_wait", "peak_memory"}
# what touches the disk: a kill before or after any of these is a moment of its own
TOUCHES = ("replace", "fsync", "open", "close", "truncate", "unlink", "mkdir", "rename", "write", "fchmod")


class Lost(AssertionError):
    """Something that was finished is gone, or something is silently wrong."""


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal) and what it said, a line where it refused."""

    code: int
    said: str


class Process:
    """``work`` in a fork of this process, begun; what it prints goes nowhere."""

    def __init__(self, work: Callable[[], object]):
        handle, self.report = tempfile.mkstemp()
        os.close(handle)
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._work(work))

    def _work(self, work: Callable[[], object]) -> int:
        code, said = 0, ""
        try:
            faulthandler.disable()
            for number in (signal.SIGINT, signal.SIGHUP):  # that a shell may have us ignore
                signal.signal(number, signal.SIG_DFL)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            torch.set_num_threads(1)
            HOOKS["moment"] = Moment  # here and in what begins here, never in the process of all tests
            work()
        except (UsageError, Failure) as error:
            code, said = 2 if isinstance(error, UsageError) else 1, str(error)
        except SystemExit as error:
            code = error.code
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            code, said = 3, traceback.format_exc()
        Path(self.report).write_text(said)
        return code

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0) -> Ended:
        """How it ended; one that does not within ``seconds`` hangs, and is lost."""
        end = time.monotonic() + seconds
        while not (done := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise Lost(f"a process hung for {seconds} s")
            time.sleep(0.005)
        said = Path(self.report).read_text()
        os.unlink(self.report)
        return Ended(os.waitstatus_to_exitcode(done[1]), said)


def ended(work: Callable[[], object], seconds: float = 60.0) -> Ended:
    return Process(work).wait(seconds)


def at_touch(number: int, act: Callable[[], None]) -> None:
    """From now on, in this process, ``act`` before the ``number``-th time that a file is touched."""
    left = [number]

    def counted(real):
        def touch(*given, **named):
            left[0] -= 1
            if left[0] == 0:
                act()
            return real(*given, **named)

        return touch

    for name in TOUCHES:
        setattr(os, name, counted(getattr(os, name)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Moment(Hook):
    """Calls :attr:`act` with the run in the middle of optimizer step ``at``, once."""

    at: int | None = None
    act: Callable[[Run], None] | None = None

    def grads(self, run):
        if run.step + 1 == Moment.at:
            Moment.at = None
            Moment.act(run)


choice.check(Config.load({}))  # the digits are read here, once for all trials


def at_step(step: int, act: Callable[[Run], None]) -> None:
    Moment.at, Moment.act = step, staticmethod(act)


class Training:
    """A small run in ``folder`` that is trained in processes of its own, however often that takes."""

    def __init__(self, folder: Path, random: Random, **given):
        base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 3, "batch_size": 128, "device": "cpu"}
        base |= {"log_interval": random.choice([1, 3, 4, 20]), "checkpoint_minutes": 0, "lr": 0.05, "threads": 1}
        base |= {"hooks": {"moment": {}, **random.choice([{}, {"ema": {}}, {"logit_stats": {}}])}}
        self.given = base | {"name": "run", "runs": str(folder), "model_args": {"batch_norm": False}} | given
        self.config = Config.load(self.given)
        self.run = Run(folder / "run", self.config)

    def train(self, sabotage: Callable[[], object] | None = None, **given) -> Ended:
        return ended(lambda: self.fit(sabotage, **given))

    def begin(self, sabotage: Callable[[], object] | None = None, **given) -> Process:
        return Process(lambda: self.fit(sabotage, **given))

    def fit(self, sabotage: Callable[[], object] | None = None, **given) -> None:
        """As a training process does it, asked to stop by signals."""
        processes.stop_on_signals()
        if sabotage:
            sabotage()
        fit(Run.create(Config.load(self.given, given)))

    def reached(self) -> int:
        """The step of the newest whole checkpoint, 0 without any."""
        state = checkpoint.find_newest(self.run.paths.checkpoints).state
        return state["step"] if state else 0

    def result(self) -> tuple[dict[str, torch.Tensor], list[dict]]:
        """Weights and rows, without times and notes."""
        state = checkpoint.find_newest(self.run.paths.checkpoints).state
        kept = [row for row in read_rows(self.run.paths.metrics) if row["kind"] != "note"]
        return state["model"], [{k: v for k, v in row.items() if k not in CLOCKS} for row in kept]

    def notes(self) -> str:
        return "\n".join(row["text"] for row in read_rows(self.run.paths.metrics) if row["kind"] == "note")


def same(whole: Training, other: Training, rows: bool = True) -> None:
    """Raise :class:`Lost` unless ``other`` ended as ``whole`` did, bit for bit."""
    (a, rows_a), (b, rows_b) = whole.result(), other.result()
    if any(not torch.equal(a[name], b[name]) for name in a):
        raise Lost("other weights")
    if rows and rows_a != rows_b:
        raise Lost("other rows of metrics")
    if other.run.status["status"] != "finished":
        raise Lost(f"status {other.run.status['status']}")


def left_behind(folder: Path) -> Sequence[Path]:
    """Unfinished files in ``folder``."""
    return [path for path in folder.rglob("*") if path.suffix == ".part"]


def python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]
