"""Processes that start warm: forked from one that has imported what takes seconds, instead of importing it again.

A :class:`Server` imports once, and forks a process for every command that it is asked for. Before such a process does
anything else it forks a *spare* of itself, which waits. A command that starts a command finds it there, a child of its
own as if it had started a new Python; and so does that one: the client of a notebook, its kernel, the worker.

What is forked has never computed and has one thread, so that nothing is lost or locked in it, and it looks at its
environment as a new Python does when it imports. :func:`start` without a spare, or a server that is gone, starts a new
Python: that costs time and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from research.processes import inherited_block


class Command(NamedTuple):
    """``python -m MODULE ARGUMENTS`` in a session of its own; what it prints is added to ``output``, none: as here."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    output: Path | None = None
    folder: str = ""
    blocked: frozenset[int] = frozenset()  # signals that wait, as they do for a child of who gives the command


class Process:
    """A process that was forked, in the words of ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; -N after signal N."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; TimeoutExpired when it has not ended after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


ZYGOTE = "research.launcher.zygote"
Started = subprocess.Popen | Process
spare: tuple[Process, Connection] | None = None  # the one that this process may use, with the line to it


def start(command: Command) -> Started:
    """Start ``command`` as a child of this process, warm where it has a spare; signals that it blocks stay blocked."""
    global spare
    if spare:
        (process, line), spare = spare, None
        with line, suppress(OSError):  # a spare that is gone
            line.send(_from_here(command))
            return process
    return _start_cold(command)


def _from_here(command: Command) -> Command:
    mask = frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    return command._replace(folder=os.getcwd(), blocked=mask, environment=dict(command.environment))


def _start_cold(command: Command) -> subprocess.Popen:
    with open(command.output or os.devnull, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", command.module, *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output if command.output else None,
            stderr=subprocess.STDOUT if command.output else None,
            env=command.environment,
            start_new_session=True,
        )


class Server:
    """A Python that has imported ``modules`` and forks; it and what it started end with this process."""

    def __init__(self, modules: Sequence[str]):
        self._line, theirs = Pipe()
        self._ended: dict[int, int] = {}
        with theirs, inherited_block():  # whatever it forks finds stop signals waiting
            self._process = subprocess.Popen(
                [sys.executable, "-m", ZYGOTE, str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # no thread before it forks
            )

    def start(self, command: Command) -> Started:
        """Start ``command``; waits until the modules are imported."""
        with suppress(OSError, EOFError):
            self._line.send(_from_here(command))
            while isinstance(told := self._line.recv(), tuple):
                self._take(told)
            return _Served(told, self)
        return _start_cold(command)

    def ended(self, pid: int) -> int | None:
        """The exit code of the process ``pid`` that was started here, once; that of a kill when the server is gone."""
        try:
            while self._line.poll():
                self._take(self._line.recv())
        except (OSError, EOFError):
            with suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return None  # it still writes its checkpoint
            return self._ended.pop(pid, -signal.SIGKILL)
        return self._ended.pop(pid, None)

    def _take(self, told: tuple[int, int]) -> None:
        self._ended[told[0]] = told[1]

    def close(self) -> None:
        """End the server; what still runs of it is asked to stop, as it wished for its parent's death."""
        self._process.kill()
        self._process.wait()
        self._line.close()


class _Served(Process):
    """A process that a server started, which alone hears of its end."""

    def __init__(self, pid: int, server: Server):
        super().__init__(pid)
        self._server = server

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ended(self.pid)
        return self.returncode
