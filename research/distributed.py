"""The processes of one run as PyTorch sees them: their group, sums over ranks, and who was lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_votes: dist.ProcessGroup | None = None  # on the CPU, whatever the ranks compute on


def init_distributed(device: torch.device) -> tuple[int, int]:
    """Enter the process group that torchrun describes in the environment; (rank, world), (0, 1) without one."""
    global _votes
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        cuda = device.type == "cuda"
        patience = timedelta(minutes=30)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=patience, device_id=device if cuda else None)
        _votes = dist.new_group(backend="gloo", timeout=patience)
    return int(os.environ.get("RANK", 0)), world


class Vote:
    """Whether any rank wishes something: asked in the background, answered alike on every rank.

    Hosts talk to hosts, so that nobody waits for a GPU; between asking and answering there is time to compute. A lone
    process asks itself, when it is to answer.
    """

    def __init__(self, wish: Callable[[], bool]):
        self.wish = wish
        if _votes is not None:
            self.wishes = torch.tensor([int(wish())])
            self.work = dist.all_reduce(self.wishes, group=_votes, async_op=True)

    def carried(self) -> bool:
        """Whether any rank wished it; waits for all of them to have voted."""
        if _votes is None:
            return self.wish()
        self.work.wait()
        return self.wishes.item() > 0


def of_rank_0(value: Any) -> Any:
    """The ``value`` (anything that pickles) that rank 0 has, on every rank."""
    if _votes is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_votes)
    return values[0]


def of_all_ranks(value: Any) -> list[Any]:
    """The ``value`` (anything that pickles) of every rank, in their order."""
    if _votes is None:
        return [value]
    values = [None] * dist.get_world_size(_votes)
    dist.all_gather_object(values, value, group=_votes)
    return values


def destroy_distributed() -> None:
    """Leave the process group, if there is one."""
    global _votes
    _votes = None
    if dist.is_initialized():
        # PyTorch 2.6 waits here for gloo's threads without letting go of the GIL, which the last collective may need to
        # free its tensors: it gets it before
        time.sleep(0.1)
        dist.destroy_process_group()


def all_reduce(values: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """Reduce ``values`` in place over all ranks; unchanged without a process group."""
    if dist.is_initialized():
        dist.all_reduce(values, op)
    return values


def from_previous_rank(values: Tensor) -> Tensor:
    """The ``values`` of the rank before this one, the last one's on the first; the same without a process group."""
    if not dist.is_initialized():
        return values
    values = values.contiguous()
    everyone = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, values)
    return everyone[dist.get_rank() - 1]


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
