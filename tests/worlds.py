"""Started by tests: train runs in float64 on as many processes as each is for, forked from one that has loaded all.

``python tests/worlds.py RUN_DIR...``; each run then has ``weights.pt``, its parameters and buffers. Batch norms can be
synchronised without a GPU here: the five kernels that PyTorch has for GPUs alone are written out.
"""

import os
import socket
import sys
from itertools import groupby
from unittest import mock

import torch
import torch.multiprocessing
from plain_network import PlainNetwork
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from research.distributed import destroy_distributed, init_distributed
from research.models import MODELS
from research.runs.run import Run
from research.training.loop import fit


def batch_norm_stats(x: Tensor, eps: float):
    return x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + eps).rsqrt()


def batch_norm_gather_stats_with_counts(x, means, invstds, running_mean, running_var, momentum, eps, counts):
    """Mean and 1 / standard deviation over all processes, from those of each; running statistics move."""
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(0)
    var = (share * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (var + eps).rsqrt()


def wide(vector: Tensor) -> Tensor:
    return vector[None, :, None, None]


def batch_norm_elemt(x, weight, bias, mean, invstd, eps):
    return (x - wide(mean)) * wide(invstd * weight) + wide(bias)


def batch_norm_backward_reduce(grad, x, mean, invstd, weight, *wanted):
    total, along = grad.sum((0, 2, 3)), (grad * (x - wide(mean))).sum((0, 2, 3))
    return total, along, along * invstd, total


def batch_norm_backward_elemt(grad, x, mean, invstd, weight, total, along, counts):
    n = counts.sum()
    return (grad - wide(total / n) - (x - wide(mean)) * wide(along * invstd**2 / n)) * wide(invstd * weight)


KERNELS = (
    batch_norm_stats,
    batch_norm_gather_stats_with_counts,
    batch_norm_elemt,
    batch_norm_backward_reduce,
    batch_norm_backward_elemt,
)


synchronised = nn.SyncBatchNorm.forward


def synchronised_on_cpu(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Its forward pass, which asks whether ``x`` is of a GPU, or of whatever accelerator has this name."""
    with mock.patch.object(torch._C, "_get_privateuse1_backend_name", lambda: "cpu"):
        return synchronised(norm, x)


def train(rank: int, world: int, port: int, directories: list[str]) -> None:
    """One process of each of these runs."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    place = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    init_distributed(torch.device("cpu"))
    for kernel in KERNELS:
        setattr(torch, kernel.__name__, kernel)
    nn.SyncBatchNorm.forward = synchronised_on_cpu
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda self, module: None  # it refuses CPUs
    for directory in directories:
        run = Run.open(directory)
        run.rank, run.world = rank, world
        fit(run)
        if rank == 0:
            torch.save(run.model.state_dict(), run.dir / "weights.pt")
    destroy_distributed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    MODELS["plain"] = PlainNetwork

    def processes(directory: str) -> int:
        return Run.open(directory).config.processes

    for world, directories in groupby(sorted(sys.argv[1:], key=processes), key=processes):
        torch.multiprocessing.start_processes(
            train, (world, free_port(), list(directories)), nprocs=world, start_method="fork"
        )
