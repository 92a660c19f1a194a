"""What is looked at and made before the first step."""

import pytest
import torch
from conftest import Killed

from research.checkpoints import checkpoint
from research.hooks import HOOKS, Hook
from research.runs.run import Run
from research.training.loop import fit
from research.training.prepare import begin_momentum


def fused(momentum: float) -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.arange(1.0, 1001.0))
    return weight, torch.optim.SGD([weight], lr=0.1, momentum=momentum, fused=True)


def test_a_first_step_that_overflows_leaves_no_momentum():
    junk = [torch.full((1000,), 3e38) for _ in range(64)]
    del junk  # what is made next may lie there
    weight, sgd = fused(momentum=0.9)
    begin_momentum(sgd)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum() * torch.inf).backward()
    scaler.step(sgd)
    scaler.update()
    assert not sgd.state[weight]["momentum_buffer"].any()
    assert torch.equal(weight, torch.arange(1.0, 1001.0))


def test_momentum_that_begins_at_zero_trains_as_without_any():
    ends = []
    for begun in (False, True):
        weight, sgd = fused(momentum=0.9)
        if begun:
            begin_momentum(sgd)
        for _ in range(3):
            weight.grad = weight.detach().sin()
            sgd.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


class Twin(Hook):
    """Holds every update against that of PyTorch's plain optimizer, which goes by places, not by memory."""

    compared = 0

    def epoch_start(self, run):
        run.optimizer.register_step_pre_hook(self.step_alone)
        run.optimizer.register_step_post_hook(self.compare)

    def step_alone(self, optimizer, *_):
        groups, state = [], {}
        for group in optimizer.param_groups:
            twins = [torch.nn.Parameter(weight.detach().clone()) for weight in group["params"]]
            for twin, weight in zip(twins, group["params"], strict=True):
                twin.grad = None if weight.grad is None else weight.grad.clone()
                state[twin] = {name: value.clone() for name, value in optimizer.state[weight].items()}
            groups.append(group | {"params": twins, "fused": False})
        self.twin = type(optimizer)(groups, lr=0.1)
        self.twin.state.update(state)
        self.twin.step()

    def compare(self, optimizer, *_):
        for group, twins in zip(optimizer.param_groups, self.twin.param_groups, strict=True):
            for weight, twin in zip(group["params"], twins["params"], strict=True):
                torch.testing.assert_close(weight, twin, atol=1e-7, rtol=1e-6)
                Twin.compared += not weight.is_contiguous()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["gram", "rigl", "itop", "ema"])
def test_updates_are_those_of_the_plain_optimizer_in_any_memory_format(tiny, monkeypatch, method, optimizer):
    monkeypatch.setitem(HOOKS, "twin", Twin)
    monkeypatch.setattr(Twin, "compared", 0)
    hooks = {"twin": {}, method: {"warmup": 0, "batches": 1} if method == "gram" else HOOKS[method].exercise}
    given = {"optimizer": optimizer, "lr": 0.05 if optimizer == "sgd" else 0.001}
    fit(Run.create(tiny(model="resnet8", epochs=1, batch_size=400, channels_last=True, hooks=hooks, **given)))
    assert Twin.compared > 10


def test_a_checkpoint_of_an_optimizer_that_is_not_fused_continues_as_it_would_have(tiny, monkeypatch, power_cut):
    """As those of earlier versions on a CPU."""

    def plain(*args, fused, sgd=torch.optim.SGD, **given):
        return sgd(*args, fused=False, **given)

    hooks = {"power_cut": {}}
    with monkeypatch.context() as earlier:
        earlier.setattr(torch.optim, "SGD", plain)
        whole = fit(Run.create(tiny(name="whole", hooks=hooks)))
        power_cut.at = 15
        cut = tiny(name="cut", hooks=hooks)
        with pytest.raises(Killed):
            fit(Run.create(cut))
    continued = fit(Run.create(cut))
    assert not any(group["fused"] for group in continued.optimizer.param_groups)
    fused = fit(Run.create(tiny(name="fused", hooks=hooks)))
    own, other, new = (checkpoint.find_newest(run.paths.checkpoints)[1]["model"] for run in (continued, whole, fused))
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert any(not torch.equal(own[name], new[name]) for name in own), "fused and plain cannot be told apart here"
