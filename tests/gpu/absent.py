"""Packages that a machine with a GPU may lack: which of them end the checks, and what stands in for the others."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np

# with torch, torchvision and timm come all of these
NEEDED = ("torch", "torchvision", "timm", "numpy", "PIL", "filelock", "safetensors", "yaml", "tqdm", "packaging")


def missing() -> list[str]:
    """The packages without which nothing can be checked."""
    return [name for name in NEEDED if find_spec(name) is None]


def stand_in() -> dict[str, str]:
    """Put what is needed of a package in its place where it is missing; by name, what that is."""
    found = {}
    if find_spec("psutil") is None:
        sys.modules["psutil"] = psutil()
        found["psutil"] = "the available memory alone"
    if find_spec("orjson") is None:
        sys.modules["orjson"] = ModuleType("orjson")
        sys.modules["orjson"].loads = json.loads
        found["orjson"] = "json"
    if find_spec("sklearn") is None:
        from research.data import synthetic

        synthetic.digits = digits
        found["sklearn"] = "random images of ten classes instead of the digits"
    if find_spec("numba") is None:
        found["numba"] = "pixels and mutual information by torch"
    return found


def psutil() -> ModuleType:
    """As much of psutil as training asks for."""
    module = ModuleType("psutil")

    def virtual_memory() -> SimpleNamespace:
        told = dict(line.split(":") for line in open("/proc/meminfo"))
        return SimpleNamespace(available=1024 * int(told["MemAvailable"].split()[0]))

    module.virtual_memory = virtual_memory
    module.Process = module.NoSuchProcess = module.Error = type("Absent", (Exception,), {})
    return module


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8, 1) uint8, noise around one picture a class, and labels int64, as the digits are stored."""
    random = np.random.default_rng(0)
    pictures, labels = random.integers(0, 256, (10, 8, 8, 1)), random.integers(0, 10, 1797)
    return (pictures[labels] * 0.7 + random.uniform(0, 76, (1797, 8, 8, 1))).astype(np.uint8), labels
