"""A process computes on the device that was asked for or decided, or says in one line why it cannot."""

import pytest
import torch

from research.config import Config
from research.errors import UsageError
from research.resources import Resources
from research.runs.network import pick_device
from research.runs.run import Run
from research.training.worker import train


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(count)``: so many GPUs are there, as far as it is about picking one."""

    def make(count: int, set_device=lambda device: None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", set_device)

    return make


@pytest.mark.parametrize(
    ("asked", "count", "decided", "device"),
    [
        ("cpu", 2, (), "cpu"),
        ("auto", 0, (), "cpu"),
        ("auto", 2, (), "cuda:1"),
        ("cuda", 2, (), "cuda:1"),
        ("auto", 2, ("cpu", "cpu"), "cpu"),
        ("auto", 2, ("cuda:1", "cuda:0"), "cuda:0"),
    ],
)
def test_second_process_takes_its_own_device(asked, count, decided, device, gpus, monkeypatch):
    gpus(count)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device(Config(device=asked), decided) == torch.device(device)


def out_of_order(device):
    raise RuntimeError("CUDA error: out of order\nmany more lines")


@pytest.mark.parametrize(
    ("asked", "count", "decided", "words"),
    [
        ("cuda", 0, (), "device='cuda': cuda:0 is not there for process 0 (0 GPUs); look at CUDA_VISIBLE_DEVICES"),
        ("auto", 0, ("cuda:0",), "device='auto': cuda:0 is not there for process 0 (0 GPUs); look at"),
        ("cuda", 1, (), "device='cuda': cuda:0: CUDA error: out of order; look at CUDA_VISIBLE_DEVICES"),
    ],
)
def test_process_without_its_gpu_says_so_in_a_line_instead_of_using_the_cpu(
    asked, count, decided, words, gpus, tmp_path, monkeypatch
):
    gpus(count, out_of_order)
    run = Run.create(Config.load({"device": asked, "runs": str(tmp_path)}))
    if decided:
        for name, value in Resources("memory", decided, threads=1, workers=1, memory=1).environment().items():
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as error:
        train(str(run.dir))
    assert str(error.value).startswith(words) and "\n" not in str(error.value)
    assert not run.paths.metrics.exists()
