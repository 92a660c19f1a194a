"""Processes of the operating system: who ends with whom, and how much memory one has held."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys

import torch

_PR_SET_PDEATHSIG = 1
DIE_WITH_PARENT = (
    "RESEARCH_DIE_WITH_PARENT"  # environment: the signal that a started command wants at its parent's death
)


def die_with_parent(sent: signal.Signals) -> None:
    """Ask Linux to send ``sent`` to this process when its parent dies, however it dies; no-op elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)


def obey_parent() -> None:
    """Die with the parent where the environment asks for it, as a sweep does of the runs that it starts."""
    if sent := os.environ.pop(DIE_WITH_PARENT, ""):
        die_with_parent(signal.Signals[sent])


def terminate(process: subprocess.Popen, grace: float) -> None:
    """Ask ``process`` to stop, give it ``grace`` seconds, then kill it and its process group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def peak_memory(device: torch.device) -> float:
    """The most memory (GB) this process has held so far: tensors on its GPU, or else all that is resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
