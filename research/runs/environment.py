"""What a session of training ran on: versions, code, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "timm", "numpy", "numba", "ffcv", "pandas", "papermill")

UNCOMMITTED = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
UNCOMMITTED += ("--", ":(top)", ":(top,exclude)*.ipynb")
"""Changed code. For notebooks, and to write down what it saw, git would start a filter: seconds for every run."""


def environment(device: torch.device, world: int) -> dict[str, Any]:
    """Versions, code and machine of this process."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git(*UNCOMMITTED)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "processes": world,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "command": sys.argv,
    }


@cache  # hundreds of runs in one process ask
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", Path(__file__).parent, *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
