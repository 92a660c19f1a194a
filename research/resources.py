"""What this machine lends a run: cores, memory, GPUs; and each process's part of it, decided once by who starts them.

Imports nothing heavy: a launcher imports it before it knows whether there is anything to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

    from research.config import Config

SHARERS = "RESEARCH_SHARERS"  # environment: runs of one sweep that share the cores and the memory of this machine
GPU_SHARERS = "RESEARCH_GPU_SHARERS"  # environment: runs of one sweep that share each GPU
HANDED = "RESEARCH_RESOURCES"  # environment: what a launcher decided, for the processes that it starts
MEMORY_SHARE = 4  # what is kept for speed may take 1/4 of the free memory: images by loader=auto, answers of teachers
GROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # control groups of Linux, and who is in which


@dataclass(frozen=True)
class Resources:
    """What each process of a run on this machine works with. No process decides any of it again."""

    loader: str
    """Where batches come from: ``memory`` or ``ffcv``."""
    devices: tuple[str, ...]
    """The device of each process on this machine, such as ``cuda:1``."""
    threads: int
    """Threads that compute."""
    workers: int
    """Threads that a loader may use."""
    memory: int
    """Bytes of this machine's memory that may be filled for speed, beside the images."""

    @classmethod
    def handed(cls) -> Resources | None:
        """What the launcher of this process decided; None where no launcher started it."""
        if not (text := os.environ.get(HANDED)):
            return None
        told = json.loads(text)
        return cls(**told | {"devices": tuple(told["devices"])})

    def environment(self) -> dict[str, str]:
        """What the started processes find in their environment."""
        return {HANDED: json.dumps(asdict(self)), "OMP_NUM_THREADS": str(self.threads)}


def decide(config: Config, loader: str) -> Resources:
    """Share out this machine among the processes that ``config`` has on it; ``loader`` is what its data came to."""
    cores = max(1, usable_cores() // (int(os.environ.get(SHARERS, 1)) * config.processes))
    gpus = usable_gpus(config)
    return Resources(
        loader,
        devices=tuple(f"cuda:{process}" if gpus else "cpu" for process in range(config.processes)),
        threads=config.threads or asked_threads(os.environ) or cores,
        workers=config.workers or cores,
        memory=free_memory() // config.processes // MEMORY_SHARE,
    )


def asked_threads(environment: Mapping[str, str]) -> int:
    """The threads that a user's OMP_NUM_THREADS asks for; 0 when it does not."""
    first = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def usable_gpus(config: Config) -> int:
    """GPUs that a run with ``config`` may use on this machine."""
    import torch  # takes seconds

    return torch.cuda.device_count() if config.device != "cpu" else 0


def usable_cores() -> int:
    """Cores that this process may keep busy: by its affinity, its control groups' quota and Slurm; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = filter(None, map(_core_quota, control_groups("cpu")))
    return max(1, int(min([affinity, *quotas, *_slurm_cores(os.environ)])))


def free_memory(device: torch.device | None = None) -> int:
    """Bytes of memory that a run may still take, if all that share it take as much: of the GPU ``device``, else here.

    Here it is what the machine has free, and every control group around this process.
    """
    if device is not None and device.type == "cuda":
        import torch  # takes seconds

        return torch.cuda.mem_get_info(device)[0] // int(os.environ.get(GPU_SHARERS, 1))
    rooms = [room for group in control_groups("memory") if (room := _room(group)) is not None]
    return max(0, min([psutil.virtual_memory().available, *rooms])) // int(os.environ.get(SHARERS, 1))


def free_gpu_memory(gpus: int) -> int:
    """Free bytes (see :func:`free_memory`) of the fullest of the first ``gpus`` GPUs, 0 where they do not answer.

    They are asked by a process that ends: whoever opens a GPU holds memory of it, and can start no forks any more.
    """
    question = f"import torch; print(min(torch.cuda.mem_get_info(gpu)[0] for gpu in range({gpus})))"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    return int(done.stdout) // int(os.environ.get(GPU_SHARERS, 1)) if done.returncode == 0 else 0


def control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups, version 1 or 2, that limit what ``controller`` gives this process; inner first."""
    for line in _text(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = GROUPS / controllers
            inside = root / path.lstrip("/")  # seen from within a container it may not be there, but its root is
            yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))


def _core_quota(group: Path) -> float:
    """Cores that a control group may use at a time; 0 without a limit."""
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not quota:  # version 1
        quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else 0


def _room(group: Path) -> int | None:
    """Bytes that a control group may still take, counting as free what the system can take back; None: no limit."""
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, usage = _text(group / most), _text(group / used)
        if limit.isdecimal() and usage.isdecimal():
            counts = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
            cache = counts.get("total_inactive_file") or counts.get("inactive_file", "0")
            return int(limit) - int(usage) + int(cache)
    return None


def _slurm_cores(environment: Mapping[str, str]) -> list[int]:
    """Cores that a Slurm job gives: to each task inside of srun, else on this node; none outside of a job."""
    names = ["SLURM_CPUS_ON_NODE"]
    if "SLURM_STEP_ID" in environment:
        names.insert(0, "SLURM_CPUS_PER_TASK")
    given = [environment[name] for name in names if environment.get(name, "").isdecimal()]
    return [int(given[0])] if given else []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not Linux, or not so far up
        return ""
