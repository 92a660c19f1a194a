"""The processes of one run as PyTorch sees them: their group, sums over ranks, and who was lost."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


def init_distributed(device: torch.device) -> tuple[int, int]:
    """Enter the process group that torchrun describes in the environment; (rank, world), (0, 1) without one."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        cuda = device.type == "cuda"
        dist.init_process_group(
            "nccl" if cuda else "gloo", timeout=timedelta(minutes=30), device_id=device if cuda else None
        )
    return int(os.environ.get("RANK", 0)), world


def destroy_distributed() -> None:
    """Leave the process group, if there is one."""
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


def lost_a_peer(error: BaseException) -> bool:
    """Whether ``error`` only says that another rank went away: the cause is there, not here."""
    words = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo")
    return isinstance(error, dist.DistError) or (
        dist.is_initialized() and isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
