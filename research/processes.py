"""Processes that belong together: the process group of one training run, and who dies with whom."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

_PR_SET_PDEATHSIG = 1


def die_with_parent(sent: signal.Signals) -> None:
    """Ask Linux to send ``sent`` to this process when its parent dies, however it dies; no-op elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)


def end(process: subprocess.Popen, grace: float) -> None:
    """Ask ``process`` to stop, give it ``grace`` seconds, then kill it and its process group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def join(device: torch.device) -> tuple[int, int]:
    """Enter the process group that torchrun describes in the environment; (rank, world), (0, 1) without one."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        cuda = device.type == "cuda"
        dist.init_process_group(
            "nccl" if cuda else "gloo", timeout=timedelta(minutes=30), device_id=device if cuda else None
        )
    return int(os.environ.get("RANK", 0)), world


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce(values: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Reduce ``values`` in place over all ranks; unchanged without a process group."""
    if dist.is_initialized():
        dist.all_reduce(values, op)
    return values


def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as DDP's training forward does: BatchNorm statistics are local."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def peak_memory(device: torch.device) -> float:
    """The most memory (GB) this process has held so far: tensors on its GPU, or else all that is resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def lost_a_peer(error: BaseException) -> bool:
    """Whether ``error`` only says that another rank went away: the cause is there, not here."""
    words = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo")
    return isinstance(error, dist.DistError) or (
        dist.is_initialized() and isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
