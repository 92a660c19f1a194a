"""CUDA without a GPU: everything trains on a pretended cuda:0, meets no CPU tensor, and waits for the GPU only at rows.

A row of metrics and an event of a sparse method may wait for values; a step between them may not.
"""

import pytest
import torch
from pretend_cuda import OnGpu, pretend_cuda

from research.config import Config
from research.hooks import HOOKS
from research.hooks.base import Hook
from research.runs.run import Run
from research.training.loop import fit

# beyond what a contract test needs of a method
MORE = {
    "distill": {"alpha": 0.5},
    "drop_path": {"p": 0.2},
    "gram": {"warmup": 0},
}
SETTINGS = {
    "plain": {},
    "bf16": {"amp": "bf16"},
    "fp16": {"amp": "fp16"},
    "clipping": {"clip_norm": 1.0},
    "accumulation": {"accumulation": 2},
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
    "augmentation": {"data_args": {"crop": "pad", "padding": 1, "flip": True, "cutout": 2}},
    "mlp": {"model": "mnist_mlp"},
    "wide": {"model": "wrn-10-1"},
    "hashed": {"substitute": "hashed:0.1"},
    "acdc": {"substitute": "acdc:12"},
    "tucker": {"substitute": "tucker:0.3"},
    "together": {"epochs": 2, "amp": "bf16", "hooks": {"rigl": {"period": 2}, "gram": {}, "power_grad": {}}},
}
METHODS = {name: {"hooks": {name: {**HOOKS[name].exercise, **MORE.get(name, {})}}} for name in HOOKS}
WAITS = {  # known to wait in every step
    "deepr": "it rewires after every update",
    "fp16": "GradScaler asks the GPU whether a gradient overflowed",
}
CASES = [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS)]


class Watch(Hook):
    """What each optimizer step waited for, and whether it had a row or an event."""

    gpu = None
    steps: list[tuple[bool, list]] = []
    logged: list[str] = []

    def epoch_start(self, run):
        self.gpu.events, self.gpu.recording = [], True
        Watch.logged.clear()

    def step_end(self, run):
        Watch.steps.append((run.row_due or run.batch == 1 or bool(Watch.logged), list(self.gpu.events)))
        self.gpu.events.clear()
        Watch.logged.clear()

    def epoch_end(self, run):
        self.gpu.recording = False


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """``trained(setting)``: a run trained on the pretended GPU, and its steps as :class:`Watch` saw them."""

    def train(**given) -> tuple[Run, list]:
        monkeypatch.setitem(HOOKS, "watch", Watch)
        Watch.steps, Watch.logged, log = [], [], Run.log
        monkeypatch.setattr(
            Run, "log", lambda run, kind, **values: (Watch.logged.append(kind), log(run, kind, **values))
        )
        hooks = {**given.pop("hooks", {}), "watch": {}}
        base = {"dataset": "digits", "model": "resnet8", "epochs": 1, "batch_size": 256, "device": "cuda"}
        base |= {"log_interval": 4, "threads": 1, "runs": str(tmp_path), "lr": 0.05}
        with pretend_cuda() as gpu:
            Watch.gpu = gpu
            run = fit(Run.create(Config.load(base, given, {"hooks": hooks})))
        return run, Watch.steps

    return train


@pytest.mark.parametrize("setting", CASES)
def test_training_stays_on_the_gpu_and_waits_for_it_only_at_rows_and_events(setting, trained):
    run, steps = trained(**(METHODS | SETTINGS)[setting])
    assert all(isinstance(p, OnGpu) for p in run.model.parameters())
    waits = [waits for may_wait, waits in steps if waits and not may_wait]
    assert bool(waits) == (setting in WAITS), waits
    with pretend_cuda() as gpu:
        Watch.gpu = gpu
        assert fit(Run.open(run.dir)).status["status"] == "finished"  # it resumes, from its end


class OnHost(Hook):
    """A defect: it keeps a sum on the CPU."""

    def grads(self, run):
        self.total = torch.zeros(len(run.logits)) + run.logits.sum(1).detach()


class Waits(Hook):
    """A defect: it looks at a number in every step."""

    def step_end(self, run):
        self.norm = next(run.model.parameters()).norm().item()


def test_a_method_that_keeps_a_tensor_on_the_host_is_found(trained, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", OnHost)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        trained(hooks={"defect": {}})


def test_a_method_that_waits_in_every_step_is_found(trained, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", Waits)
    _, steps = trained(hooks={"defect": {}})
    assert [waits for may_wait, waits in steps if waits and not may_wait]
