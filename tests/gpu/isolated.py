"""A check as a process of its own: it may fail, hang or crash, and the others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

LEAST = 3.0  # seconds: with less it is not begun


class Skip(Exception):
    """Why a check cannot be made here."""


class Wrong(Exception):
    """What a check found to be wrong, in a line; ``numbers`` are what it measured all the same."""

    def __init__(self, reason: str, numbers: dict[str, Any] | None = None):
        super().__init__(reason)
        self.numbers = numbers or {}


@dataclass(frozen=True)
class Check:
    """``run(device)`` ("cuda" or "cpu") returns what it measured; it has ``seconds`` on a GPU, more on a CPU."""

    run: Callable[[str], dict[str, Any]]
    seconds: float


def run(check: Check, device: str, left: float = float("inf")) -> dict[str, Any]:
    """The outcome of ``check``: passed, failed or skipped, with seconds, numbers and a reason."""
    limit = min(check.seconds * (1 if device == "cuda" else 4), left)
    if limit < LEAST:
        return {"outcome": "skipped", "seconds": 0.0, "reason": f"no time left: {left:.0f} s"}
    # forked, so that nothing is imported twice; this process never touches CUDA, which does not survive a fork
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryFile("w+") as output:
        process = context.Process(target=_work, args=(check.run, device, sender, output.fileno()))
        started = time.monotonic()
        process.start()
        sender.close()
        try:
            result = receiver.recv() if receiver.poll(limit) else {"reason": f"not done after {limit:.0f} s"}
        except EOFError:
            process.join(10)
            result = {"reason": f"its process ended with code {process.exitcode}"}
        _end(process)
        seconds = round(time.monotonic() - started, 1)
        output.seek(0)
        result = {"outcome": "failed", "seconds": seconds} | result
        if result["outcome"] == "failed":
            result["output"] = output.read()[-3000:]
        return result


def _work(function: Callable[[str], dict[str, Any]], device: str, sender: Connection, output: int) -> None:
    os.setsid()  # what it starts ends with it
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout = sys.stderr = open(output, "w", buffering=1, closefd=False)
    try:
        result = {"outcome": "passed", "numbers": function(device)}
    except Skip as skip:
        result = {"outcome": "skipped", "reason": str(skip)}
    except Wrong as wrong:
        result = {"outcome": "failed", "reason": str(wrong), "numbers": wrong.numbers}
    except BaseException as error:
        traceback.print_exc()
        result = {"outcome": "failed", "reason": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    sys.stdout.flush()
    sender.send(result)
    sender.close()
    os._exit(0)  # nothing is to be tidied up that could hang


def _end(process: multiprocessing.Process) -> None:
    """End the process, and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.join()
