"""CUDA without a GPU: everything trains on a pretended cuda:0, meets no CPU tensor, and waits for the GPU only at rows,
events and epochs, as often as the table of the methods says."""

import re

import pytest
import torch
from conftest import REPOSITORY
from gpu_cases import METHODS, SETTINGS, VARIANTS, gpu, table, train, waits
from pretend_cuda import OnGpu

from research.hooks import HOOKS
from research.hooks.base import Hook
from research.runs.run import Run
from research.training.loop import fit

TABLE = re.findall(
    r"^\| .* \|$", (REPOSITORY / "research/hooks/README.md").read_text().split("## Waiting for the GPU")[1], re.M
)
OFTEN = [*METHODS, "set granularity=2"]
CASES = [*OFTEN, *(pytest.param(n, marks=pytest.mark.slow) for n in [*VARIANTS, *SETTINGS] if n not in OFTEN)]


@pytest.fixture(scope="module")
def plain():
    return waits(cases={})


@pytest.mark.parametrize("name", CASES)
def test_training_stays_on_the_gpu_and_waits_for_it_as_the_documents_say(name, plain, tmp_path):
    run, observer = train(str(tmp_path), **(METHODS | VARIANTS | SETTINGS)[name])
    assert all(isinstance(p, OnGpu) for p in run.model.parameters())
    found = observer.waits
    if name in SETTINGS:
        assert found.step == 0 and found.row == 1
    else:
        found = found._replace(epoch=found.epoch - plain["plain training"].epoch)
        assert table({name: found})[0] in TABLE
    with gpu():
        assert fit(Run.open(run.dir)).status["status"] == "finished"  # it resumes, from its end


def test_the_documented_waits_are_those_of_every_method():
    named = [row.split(" | ")[0].removeprefix("| ") for row in TABLE[2:]]
    assert named == ["plain training", *METHODS, *VARIANTS]


class OnHost(Hook):
    """A defect: it keeps a sum on the CPU."""

    def grads(self, run):
        self.total = torch.zeros(len(run.logits)) + run.logits.sum(1).detach()


class HostMask(Hook):
    """A defect: its mask for the gradients is on the CPU."""

    def grads(self, run):
        for parameter in run.model.parameters():
            parameter.grad.mul_(torch.ones(parameter.shape, device="cpu"))


class AsArray(Hook):
    """A defect: it looks at a tensor of the GPU as an array."""

    def step_end(self, run):
        self.norms = next(run.model.parameters()).detach().numpy()


class Waits(Hook):
    """A defect: it looks at a number in every step."""

    def step_end(self, run):
        self.norm = next(run.model.parameters()).norm().item()


class Pageable(Hook):
    """A defect: what it sends in every step leaves from memory that is not pinned, so that the host waits."""

    def step_end(self, run):
        self.noise = torch.randn(8).to(run.device, non_blocking=True)


@pytest.mark.parametrize(
    ("defect", "error", "words"),
    [
        (OnHost, RuntimeError, "Expected all tensors to be on the same device"),
        (HostMask, RuntimeError, "Expected all tensors to be on the same device"),
        (AsArray, TypeError, "can't convert cuda:0 device type tensor to numpy"),
    ],
)
def test_a_method_that_mixes_host_and_gpu_is_found(defect, error, words, tmp_path, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", defect)
    with pytest.raises(error, match=words):
        train(str(tmp_path), hooks={"defect": {}})


@pytest.mark.parametrize(("defect", "kind"), [(Waits, "item"), (Pageable, "blocking copy from host")])
def test_a_method_that_waits_in_every_step_is_found(defect, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", defect)
    _, observer = train(str(tmp_path), hooks={"defect": {}})
    assert observer.waits.step == 1
    assert {event[0] for step in observer.steps for event in step} == {kind}
