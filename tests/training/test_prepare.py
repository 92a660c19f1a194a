"""What is looked at and made before the first step."""

import torch

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
