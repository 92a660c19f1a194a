"""Processes of the operating system: which end together, what asks them to stop, how much memory one has used.

Imports nothing heavy: a process listens for signals before it imports what takes seconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
DIE_WITH_PARENT = (
    "RESEARCH_DIE_WITH_PARENT"  # environment: the signal that a started command wants at its parent's death
)
LOCAL_ADDRESS = "RESEARCH_LOCAL_ADDRESS"  # environment: where the other nodes of a run reach this one
PARENT = "RESEARCH_PARENT"  # environment: the process that must be the parent of a started one
# What schedulers, service managers, containers and closed terminals send to let a program end in order
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
STOPPED = 128 + signal.SIGTERM  # exit code of a process that was asked to stop, and did so in order
SAME_ASK_SECONDS = 2.0  # signals this close are one wish: whole process groups get several


def die_with_parent(sent: signal.Signals) -> None:
    """Ask Linux to send ``sent`` to this process when its parent dies for any reason; no-op elsewhere.

    A parent that is gone already, before this process could ask, counts as well where the environment names it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
        if int(os.environ.get(PARENT, os.getppid())) != os.getppid():
            os.kill(os.getpid(), sent)


def obey_parent() -> None:
    """Die with the parent if the environment asks for it, as a sweep does for its runs."""
    if sent := os.environ.pop(DIE_WITH_PARENT, ""):
        die_with_parent(signal.Signals[sent])


def terminate(process: subprocess.Popen, grace: float) -> None:
    """Ask ``process`` to stop, give it ``grace`` seconds, then kill it and its process group, also if interrupted.

    What the process started in other groups must die with it.
    """
    if process.poll() is not None:
        return
    try:
        process.terminate()
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:
        kill(process)


def terminate_all(processes: Collection[subprocess.Popen], grace: float) -> None:
    """Ask ``processes`` to stop; those that have not after ``grace`` seconds, or at a second Ctrl-C, are killed.

    Each leads a process group, which dies with it.
    """
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """End ``process``, the leader of its process group, and all in the group at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def inherited_block() -> Iterator[None]:
    """In this context, started processes have stop signals blocked until they call :func:`unblock`.

    So none is lost, and none kills, between its first instruction and its first handler.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Accept stop signals again, including pending ones."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def listens(number: signal.Signals) -> bool:
    """Whether this process handles ``number``; a signal that nohup ignores stays ignored."""
    return number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN


class Interruption:
    """Context in which every stop signal is one KeyboardInterrupt, raised no earlier than :meth:`release` says.

    Further signals are the same wish for ``SAME_ASK_SECONDS``; a later one interrupts again, what cleans up too. Does
    nothing outside of the main thread.
    """

    def __init__(self) -> None:
        self.asked: float | None = None  # time of the first signal
        self.released = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in filter(listens, STOP_SIGNALS):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def release(self) -> None:
        """Let signals interrupt from now on; one that came before does so at once."""
        self.released = True
        if self.asked is not None:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        first = self.asked is None
        self.asked = time.monotonic() if first else self.asked
        if self.released and (first or time.monotonic() - self.asked > SAME_ASK_SECONDS):
            raise KeyboardInterrupt


_stops: set[int] = set()  # signals that asked; no Event: its lock would wait for itself in a handler within a handler


def stop_requested() -> bool:
    """Whether a stop signal came since :func:`stop_on_signals`."""
    return bool(_stops)


def stop_on_signals() -> None:
    """Let every stop signal ask for an orderly end, see ``stop_requested``, instead of ending this process."""
    for number in filter(listens, STOP_SIGNALS):
        signal.signal(number, lambda number, _: _stops.add(number))
    unblock()


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is allocated next: as a rule it goes back to the system, which
    clears every page anew when a layer asks for it again.

    Blocks of more than 32 MB go back as ever. What an environment says of ``MALLOC_…`` counts, and other C libraries
    than glibc stay as they are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # as far as glibc raises it by itself
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def peak_memory(device: torch.device) -> float:
    """The peak memory (GB) of this process so far: tensors on its GPU, else its resident memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
