"""Signs of life of a run's processes: the progress of each, to be watched from outside."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<qqqq")
STAGES = ("after the step", "evaluating", "ending an epoch", "beginning an epoch", "in the next step", "starting")
DONE, EVALUATING, EPOCH_END, EPOCH_START, IN_STEP, STARTING = range(len(STAGES))  # in the order of a step's number


class Place(NamedTuple):
    """Where a process is: optimizer steps done, stage after that, batch within the stage; and steps of this session."""

    step: int
    stage: int
    part: int
    session: int


class Pulse:
    """A process's sign of life: a file with its place, 32 bytes in one write; without a path, nothing."""

    def __init__(self, path: Path | None = None):
        self.file, self.session = None, 0
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def beat(self, step: int, stage: int, part: int = 0) -> None:
        """Write where this process is; a full disk does not end training."""
        self.session += stage == DONE
        if self.file is not None:
            with suppress(OSError):
                os.pwrite(self.file, _RECORD.pack(step, stage, part, self.session), 0)


def read_pulses(folder: Path) -> dict[int, Place]:
    """The place of every rank that has written it to ``folder``."""
    found = {}
    for path in folder.glob("rank*"):
        with suppress(OSError, ValueError, struct.error):
            found[int(path.name.removeprefix("rank"))] = Place(*_RECORD.unpack(path.read_bytes()))
    return found
