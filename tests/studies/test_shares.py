"""Runs of a sweep share GPUs, threads and memory: what each is handed, who waits, and what is refused."""

import os
import re
import subprocess
import sys

import psutil
import pytest
import torch
import yaml

from research.config import Config
from research.errors import UsageError
from research.resources import free_memory
from research.studies import execution
from research.studies import sweep as sweeping
from research.studies.shares import Machine, visible_gpus
from research.studies.sweep import sweep


class NoServer:
    """In the place of a server: what is started here is only pretended."""

    def __init__(self, modules):
        pass

    def close(self):
        pass


ONE, TWO, EIGHT = (Config(processes=count) for count in (1, 2, 8))


def machine(gpus: int, jobs: int, per_gpu: int = 1) -> Machine:
    return Machine([str(index) for index in range(gpus)], jobs, per_gpu)


def test_runs_at_a_time_get_different_gpus_and_give_them_back():
    here = machine(gpus=4, jobs=4)
    shares = [here.take(config) for config in (TWO, ONE, ONE)]
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2", "3"]
    assert here.take(ONE) is None  # no GPU is left
    here.give_back(shares[1])
    assert here.take(TWO) is None and here.take(ONE).gpus == ("2",)


def test_small_runs_are_packed_evenly():
    here = machine(gpus=2, jobs=6, per_gpu=3)
    assert [here.take(ONE).gpus for _ in range(6)] == [("0",), ("1",)] * 3
    assert here.take(ONE) is None


def test_a_run_never_gets_a_gpu_twice():
    here = machine(gpus=2, jobs=3, per_gpu=2)
    first = here.take(ONE)
    assert here.take(TWO).gpus == ("0", "1")
    assert here.take(TWO) is None  # two slots may be left, but on one GPU
    here.give_back(first)
    assert here.take(TWO).gpus == ("0", "1")


def test_jobs_are_the_limit_without_gpus():
    here = machine(gpus=0, jobs=2)
    first, second = here.take(ONE), here.take(TWO)
    assert here.take(ONE) is None
    assert first.gpus == second.gpus == () and "CUDA_VISIBLE_DEVICES" not in first.environment


def test_a_run_on_the_cpu_takes_no_gpu():
    here = machine(gpus=1, jobs=2)
    assert here.take(Config(device="cpu")).gpus == () and here.take(ONE).gpus == ("0",)


@pytest.mark.parametrize(
    ("gpus", "jobs", "per_gpu", "configs", "told"),
    [
        (
            8,
            2,
            1,
            [EIGHT] * 2,
            "--jobs 2: 1 of these runs at a time fill 8 GPUs with --per-gpu 1; use --jobs 1, or --per-gpu 2",
        ),
        (
            1,
            3,
            2,
            [ONE] * 3,
            "--jobs 3: 2 of these runs at a time fill 1 GPU with --per-gpu 2; use --jobs 2, or --per-gpu 3",
        ),
        (0, 2, 2, [ONE] * 2, "--per-gpu 2: shares out GPUs, and this machine has none; leave it out"),
        (2, 2, 2, [Config(device="cpu")] * 2, "--per-gpu 2: shares out GPUs, and no run here uses one; leave it out"),
    ],
)
def test_what_can_never_be_is_refused(gpus, jobs, per_gpu, configs, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        machine(gpus, jobs, per_gpu).refuse(configs)


@pytest.mark.parametrize(
    ("gpus", "jobs", "configs"), [(8, 2, [EIGHT, TWO, ONE]), (8, 4, [TWO] * 9), (8, 2, [EIGHT]), (0, 64, [EIGHT] * 64)]
)
def test_what_can_be_is_not_refused(gpus, jobs, configs):
    machine(gpus, jobs).refuse(configs)


def test_devices_keep_the_names_that_the_user_gave(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab12")
    assert visible_gpus() == ["3", "GPU-ab12"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_a_study_of_runs_of_several_sizes_never_doubles_a_gpu(tmp_path, monkeypatch):
    """Eight pretended GPUs, runs of 8, 2 and 1: what each was handed, and that no GPU had two runs at any time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)
    busy, handed = {}, []

    def start(server, notebook, point, share):
        gpus = share.environment["CUDA_VISIBLE_DEVICES"].split(",")
        now = [gpu for others, process in busy.values() if process.poll() is None for gpu in others]
        assert not set(gpus) & set(now)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"], start_new_session=True)
        busy[point.dir] = gpus, process
        handed.append(len(gpus))
        return process

    monkeypatch.setattr(execution, "start", start)
    monkeypatch.setattr(sweeping, "Server", NoServer)
    study = tmp_path / "study.yaml"
    entries = {"name": "s", "base": {"batch_size": 64}, "grid": {"processes": [8, 2, 1]}, "seeds": [0, 1]}
    study.write_text(yaml.safe_dump(entries))
    assert sweep(study, jobs=4) == 0
    assert sorted(handed) == [1, 1, 2, 2, 8, 8]


def test_memory_is_shared_by_the_runs_of_a_sweep(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1200}))
    assert free_memory() == 1200
    for name, value in machine(gpus=0, jobs=4).take(ONE).environment.items():
        monkeypatch.setitem(os.environ, name, value)
    assert free_memory() == 300
