"""What a machine lends a run: cores, memory, GPUs, shared out once and handed on."""

import json
import os
from types import SimpleNamespace

import psutil
import pytest
from conftest import rows

from research import launch, resources
from research.resources import HANDED, Resources, decide, free_memory, usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(cores, membership, files)``: a machine of so many cores and free bytes, and its control groups."""
    for name in list(os.environ):
        if name.startswith("SLURM_") or name == "OMP_NUM_THREADS":
            monkeypatch.delenv(name)

    def make(cores=64, membership="", files=None, free=10**12):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
        (tmp_path / "membership").write_text(membership)
        for name, text in (files or {}).items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(f"{text}\n")
        monkeypatch.setattr(resources, "GROUPS", tmp_path / "groups")
        monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "membership")

    return make


QUOTA, PERIOD, LIMIT, USAGE = "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "memory.usage_in_bytes"
NO_LIMIT = 9223372036854771712  # as version 1 says it


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/job/step\n", {}, 64),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "800000 100000"}, 8),
        ("0::/job/step\n", {"job/step/cpu.max": "250000 100000", "job/cpu.max": "800000 100000"}, 2),
        ("0::/docker/of/the/host\n", {"cpu.max": "400000 100000"}, 4),  # from within a container its root is seen
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/a\n0::/\n", {f"cpu,cpuacct/a/{QUOTA}": 300000, f"cpu,cpuacct/a/{PERIOD}": 100000}, 3),
        ("4:cpu:/a\n", {f"cpu/a/{QUOTA}": -1, f"cpu/a/{PERIOD}": 100000}, 64),
        ("4:cpuset:/a\n", {f"cpuset/a/{QUOTA}": 100000, f"cpuset/a/{PERIOD}": 100000}, 64),
    ],
)
def test_cores_are_those_of_every_control_group_around(machine, membership, files, cores):
    machine(64, membership, files)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({"SLURM_CPUS_ON_NODE": "12"}, 12),
        ({"SLURM_CPUS_ON_NODE": "12", "SLURM_CPUS_PER_TASK": "3"}, 12),  # in a batch script: all its tasks' cores
        ({"SLURM_CPUS_ON_NODE": "12", "SLURM_CPUS_PER_TASK": "3", "SLURM_STEP_ID": "0"}, 3),
        ({"SLURM_CPUS_ON_NODE": "12", "SLURM_STEP_ID": "0"}, 12),
        ({"SLURM_CPUS_ON_NODE": "96"}, 64),
    ],
)
def test_cores_are_those_of_the_slurm_job(machine, monkeypatch, environment, cores):
    machine(64)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("membership", "files", "free"),
    [
        ("0::/a\n", {"a/memory.max": "max", "a/memory.current": "900"}, 10**6),
        ("0::/a\n", {"a/memory.max": "1000", "a/memory.current": "900"}, 100),
        ("0::/a\n", {"a/memory.max": 1000, "a/memory.current": 900, "a/memory.stat": "inactive_file 300"}, 400),
        ("6:memory:/a\n", {f"memory/a/{LIMIT}": 500, f"memory/a/{USAGE}": 200}, 300),
        ("6:memory:/a\n", {f"memory/a/{LIMIT}": NO_LIMIT, f"memory/a/{USAGE}": 2}, 10**6),
    ],
)
def test_free_memory_is_that_of_every_control_group_around(machine, membership, files, free):
    machine(1, membership, files, free=10**6)
    assert free_memory() == free


@pytest.mark.parametrize(
    ("given", "asked", "threads", "workers"),
    [
        ({"threads": 0}, "", 64, 64),
        ({"threads": 0, "processes": 8}, "", 8, 8),
        ({"threads": 0, "processes": 8}, "2", 2, 8),  # a user's wish
        ({"threads": 0}, "4,2", 4, 64),
        ({"threads": 3}, "2", 3, 64),  # the later wish
        ({"workers": 5}, "", 1, 5),
        ({"threads": 0, "processes": 128}, "", 1, 1),
    ],
)
def test_threads_and_workers_are_shared_out_unless_they_were_asked_for(
    machine, monkeypatch, tiny, given, asked, threads, workers
):
    machine(64)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    decided = decide(tiny(batch_size=128, **given), "memory")
    assert (decided.threads, decided.workers) == (threads, workers)
    assert decided.devices == ("cpu",) * given.get("processes", 1)


def test_processes_find_what_was_decided(monkeypatch):
    decided = Resources("ffcv", ("cuda:0", "cuda:1"), threads=3, workers=4, memory=5)
    for name, value in decided.environment().items():
        monkeypatch.setenv(name, value)
    assert Resources.handed() == decided and os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv(HANDED)
    assert Resources.handed() is None


def test_process_takes_what_was_handed_and_nothing_of_another_group(tiny, monkeypatch, in_workers, tmp_path):
    """Started from within a torchrun, which would have it wait for ranks that never come."""
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("PET_NNODES", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    in_workers(
        f"""
        import atexit, json, os, torch
        def tell():
            said = {{name: value for name, value in os.environ.items() if name in ("{HANDED}", "PET_NNODES")}}
            open("{tmp_path / "told"}", "w").write(json.dumps(said | {{"threads": torch.get_num_threads()}}))
        atexit.register(tell)
        import research.resources
        research.resources.decide = None
        """
    )
    run = launch(tiny(epochs=1, threads=0))
    assert rows(run)[-1]["kind"] == "val"
    said = json.loads((tmp_path / "told").read_text())
    handed = json.loads(said.pop(HANDED))
    assert said == {"threads": 2}, "of the user"
    assert (handed["loader"], handed["threads"], handed["devices"]) == ("memory", 2, ["cpu"])
