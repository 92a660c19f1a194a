"""All checks, in the order in which they run, each with its seconds on a GPU."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from equal import EQUAL
from isolated import Check, Wrong
from speed import SPEED

LIMITS = {"equal network": 60, "methods train, and wait": 90, "loss scales": 60, "precisions, compiled": 120}
LIMITS |= {"speed imagenet, compiled": 120, "speed of methods": 90}
QUERY = "name,driver_version,memory.total,power.limit,clocks.max.sm"


def hardware(device: str) -> dict[str, Any]:
    """The machine, and versions of what computes on it."""
    numbers = {"python": platform.python_version(), "cores": os.cpu_count(), "processor": processor()}
    for package in ("torch", "torchvision", "timm", "numpy", "numba", "triton"):
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "none"
    if device == "cpu":
        return numbers
    if not torch.cuda.is_available():
        raise Wrong("no GPU that PyTorch can use; --device cpu runs the same checks, small, without one", numbers)
    properties = torch.cuda.get_device_properties(0)
    numbers |= {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}"}
    numbers |= {"GiB": round(properties.total_memory / 2**30, 1), "multiprocessors": properties.multi_processor_count}
    numbers |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "gpus": torch.cuda.device_count()}
    try:
        query = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        told = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        told = "does not answer"
    return numbers | {f"nvidia-smi {QUERY}": told}


def processor() -> str:
    """Its name as Linux tells it."""
    try:
        names = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


CHECKS = {"hardware": Check(hardware, 60)}
CHECKS |= {name: Check(run, LIMITS.get(name, 40)) for name, run in (EQUAL | SPEED).items()}
