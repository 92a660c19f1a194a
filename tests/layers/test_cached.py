"""What is made of parameters alone is made once in evaluation, and anew whenever they may have changed."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from research.layers.families.cached import KeepsKernel, cached_in_eval


class Squared(KeepsKernel):
    """Counts how often its product was made."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.made = 0

    @cached_in_eval
    def forward(self):
        self.made += 1
        return self.weight**2


@pytest.fixture
def evaluated():
    module = Squared().eval()
    with torch.no_grad():
        module()
    return module


@torch.no_grad()
def test_made_once_in_evaluation(evaluated):
    evaluated()
    with torch.inference_mode():
        evaluated()
    assert evaluated.made == 1


def test_made_every_time_in_training_and_with_gradients(evaluated):
    evaluated().sum().backward()
    assert evaluated.weight.grad.tolist() == [0, 2, 4]
    evaluated.train()
    with torch.no_grad():
        evaluated()
        evaluated()
    assert evaluated.made == 4


def replace(module):
    module.weight = nn.Parameter(module.weight + 1)


@pytest.mark.parametrize(
    "change",
    [
        replace,
        lambda module: torch._foreach_sub_(list(module.parameters()), 1.0),  # as optimizers step
        lambda module: module.load_state_dict({"weight": torch.ones(3)}),
        lambda module: module.weight.copy_(torch.ones(3)),
        lambda module: setattr(module.weight, "data", torch.ones(3)),
        lambda module: module.double(),
        lambda module: nn.utils.vector_to_parameters(torch.ones(3), module.parameters()),
    ],
)
@torch.no_grad()
def test_made_anew_after_a_change(evaluated, change):
    change(evaluated)
    assert torch.equal(evaluated(), evaluated.weight**2)
    assert evaluated().dtype == evaluated.weight.dtype


class Product(KeepsKernel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    @cached_in_eval
    def forward(self):
        return self.weight @ self.weight


@torch.no_grad()
def test_made_anew_where_autocast_rounds_to_another_type():
    """Training evaluates under autocast; GraM measures the same network without."""
    product, seen = Product().eval(), []
    for dtype in (torch.bfloat16, None, torch.float16):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            seen.append(product().dtype)
    assert seen == [torch.bfloat16, torch.float32, torch.float16]


@torch.no_grad()
def test_data_written_past_the_version_counter_is_seen_after_training(evaluated):
    evaluated.weight.data.fill_(7)
    evaluated.train()()
    assert evaluated.eval()().tolist() == [49, 49, 49]


def test_what_a_fused_optimizer_steps_in_compiled_training_is_seen(evaluated):
    """Neither leaves a trace: compiled training does not come by the method, and the step counts no version."""
    optimizer = torch.optim.SGD(evaluated.parameters(), lr=1.0, fused=True)
    evaluated.train()
    torch.compile(evaluated, backend="eager")().sum().backward()
    optimizer.step()
    evaluated.eval()
    with torch.no_grad():
        assert torch.equal(evaluated(), evaluated.weight**2)


@torch.no_grad()
def test_copies_do_not_share(evaluated):
    other = copy.deepcopy(evaluated)
    other.weight.fill_(5)
    assert other().tolist() == [25, 25, 25]
    assert evaluated().tolist() == [0, 1, 4]


@torch.no_grad()
def test_nothing_is_kept_of_modules_that_are_gone():
    module = Squared().eval()
    kept = weakref.ref(module())
    assert kept() is not None
    del module
    gc.collect()
    assert kept() is None
