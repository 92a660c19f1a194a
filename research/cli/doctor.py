"""``research doctor``: does this installation work?

Each check says what it found and, when that is a problem, what to do about it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from research.cli.commands import Commands
from research.resources import free_memory, usable_cores

REINSTALL = "make install (or: pip install -c constraints.txt -e .)"
FFCV_INSTALL = "make install (or: pip install ffcv, which is compiled with OpenCV and libturbojpeg)"
FFCV_SECONDS = 180  # the first import compiles; a pipeline that hangs must not hang the doctor
LEAST_DISK, LITTLE_DISK = 0.5, 5.0  # GB
LITTLE_MEMORY = 4.0  # GB


class Finding(NamedTuple):
    """One line of the report: ok; an optional data set is absent; usable with limits; not usable."""

    level: Literal["ok", "absent", "warning", "broken"]
    text: str
    remedy: str = ""


def add_to(commands: Commands) -> None:
    """Add the command of this file."""
    commands.add("doctor", lambda options: examine(), "check the installation, and say what to do about each problem")


def examine() -> int:
    """Print every finding as it is made; 0 when the installation is usable, 1 when something is broken."""
    findings = []
    for check in (packages, torch_works, devices, machine, ffcv_works, data_found, places):
        try:
            for finding in check():
                findings.append(finding)
                print(f"{finding.level:<8} {finding.text}", flush=True)
                if finding.remedy:
                    print(f"{'':<8} do: {finding.remedy}", flush=True)
        except Exception as error:  # a doctor that dies of the disease helps nobody
            findings.append(Finding("broken", f"{check.__name__}: {type(error).__name__}: {error}", REINSTALL))
            print(f"{'broken':<8} {findings[-1].text}\n{'':<8} do: {REINSTALL}", flush=True)
    count = {level: sum(f.level == level for f in findings) for level in ("warning", "broken")}
    verdict = "broken" if count["broken"] else "usable"
    print(f"\n{verdict}: {count['broken']} broken, {count['warning']} warnings")
    return 1 if count["broken"] else 0


def packages() -> Iterator[Finding]:
    """Python, and the installed packages against pyproject.toml."""
    from packaging.requirements import Requirement

    yield Finding("ok", f"Python {platform.python_version()} at {sys.executable}")
    try:
        required = [Requirement(line) for line in metadata.requires("research") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("warning", "research runs from its folder but is not installed", REINSTALL)
        return
    right = []
    for requirement in required:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("broken", f"{requirement.name} is not installed", REINSTALL)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            right.append(f"{requirement.name} {version}")
        else:
            yield Finding("broken", f"{requirement.name} {version} is not {requirement.specifier}", REINSTALL)
    yield Finding("ok", ", ".join(right))


def torch_works() -> Iterator[Finding]:
    """Whether torch and torchvision fit each other: their compiled operators must be built for one another."""
    import torch
    import torchvision

    kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([1.0, 0.5]), 0.5)
    assert kept.tolist() == [0]
    yield Finding("ok", f"torch {torch.__version__} and torchvision {torchvision.__version__} work together")


def devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        total = torch.ones(8, device=f"cuda:{index}").sum().item()
        yield Finding(
            "ok" if total == 8 else "broken", f"GPU {index}: {found.name}, {found.total_memory / 2**30:.0f} GiB"
        )
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi")
        remedy = f"update the driver: this torch is built for CUDA {torch.version.cuda}" if driver else ""
        yield Finding("warning" if driver else "ok", "no usable GPU; training runs on the CPU", remedy)


def machine() -> Iterator[Finding]:
    """Cores, memory and threads."""
    import torch

    memory, cores = free_memory() / 2**30, usable_cores()
    threads = f", OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in os.environ else ""
    text = f"{cores} cores, {memory:.1f} GiB of memory free, {torch.get_num_threads()} threads{threads}"
    small = memory < LITTLE_MEMORY
    yield Finding("warning" if small else "ok", text, "lower batch_size and processes, or use loader=ffcv" * small)


def ffcv_works() -> Iterator[Finding]:
    """Write a small FFCV file and read it again, in a process that is given up after ``FFCV_SECONDS``."""
    remedy = f"{FFCV_INSTALL}; until then loader=memory works for data sets that fit into memory"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "research.cli.doctor", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FFCV_SECONDS)
        except subprocess.TimeoutExpired:
            yield Finding("warning", f"FFCV: writing and reading did not end within {FFCV_SECONDS} s", remedy)
            return
    if done.returncode:
        said = (done.stderr.strip() or f"ended with code {done.returncode}").splitlines()[-1]
        yield Finding("warning", f"FFCV: {said}", remedy)
    else:
        yield Finding("ok", "FFCV writes and reads; its pixels are those of the memory loader")


def write_and_read(folder: str) -> None:
    """The evaluation digits through a new FFCV file in ``folder`` and from memory: the same batches."""
    import torch

    from research.config import Config
    from research.data.choice import make_loader
    from research.data.ffcv import beton

    beton.write("digits", out=folder)
    kept = []
    for kind in ("ffcv", "memory"):
        given = {"dataset": "digits", "data_root": folder, "loader": kind, "batch_size": 64}
        loader = make_loader(Config.load(given), "val")
        kept.append(torch.cat([inputs for inputs, _ in loader]))
        loader.close()
    if not torch.equal(*kept):
        raise RuntimeError("FFCV's pixels differ from those of the memory loader")


def data_found() -> Iterator[Finding]:
    """Which data sets can be trained on, found as training finds them."""
    from research.config import Config
    from research.data.choice import check
    from research.data.datasets import DATASETS, data_root
    from research.errors import UsageError

    root = data_root().resolve()
    yield Finding("ok", f"data root: {root}")
    for name in DATASETS:
        try:
            info = check(Config.load({"dataset": name, "data_root": str(root), "batch_size": 1}))
        except UsageError as error:
            yield Finding("absent", str(error).splitlines()[0])
        else:
            yield Finding("ok", f"{name}: {info.train:,} samples to train on, {info.val:,} to evaluate on")


def places() -> Iterator[Finding]:
    """Where results are written: runs/ and the log."""
    runs, log = Path("runs"), Path("research-log.md")
    place = next(folder for folder in (runs.resolve(), *runs.resolve().parents) if folder.is_dir())
    try:
        tempfile.TemporaryFile(dir=place).close()
        yield Finding("ok", f"{runs.resolve()} can be written")
    except OSError as error:
        yield Finding("broken", f"{place}: {error.strerror}", f"chmod u+w {place}, or give runs=FOLDER")
    free = shutil.disk_usage(place).free / 1e9
    level = "broken" if free < LEAST_DISK else "warning" if free < LITTLE_DISK else "ok"
    yield Finding(level, f"{free:.1f} GB of disk free", "delete old runs, or give runs=FOLDER" if level != "ok" else "")
    if log.exists() and not (os.access(log, os.W_OK) and log.stat().st_mode & 0o222):
        yield Finding("warning", f"{log} is read-only", f"chmod u+w {log}")


if __name__ == "__main__":
    write_and_read(sys.argv[1])
