"""Synchronised batch norm: the network stays what it computes, with everything registered on it."""

import pytest
import torch
from torch import nn

from research.errors import UsageError
from research.layers.sync_norm import synchronise
from research.models import create_model


@pytest.mark.parametrize("name", ["resnet8", "timm:regnetx_002", "timm:mobilenetv3_small_050", "timm:efficientnet_b0"])
def test_a_network_computes_what_it_did(name):
    torch.manual_seed(0)
    model, x = create_model(name, 10, (3, 32, 32)).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
        before, parameters = model(x), list(model.state_dict())
        synchronise(model)
        assert torch.equal(model(x), before)
    assert list(model.state_dict()) == parameters
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_what_was_registered_on_a_batch_norm_stays():
    model, seen = nn.Sequential(nn.BatchNorm2d(3)), []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    synchronise(model)
    model.eval()(torch.zeros(1, 3, 2, 2))
    assert seen == [(1, 3, 2, 2)]


def test_a_batch_norm_that_does_something_else_is_refused_and_nothing_changed():
    class Halved(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) / 2

    model = nn.Sequential(nn.BatchNorm2d(3), Halved(3))
    with pytest.raises(UsageError, match="sync_bn=True: 1 is a Halved"):
        synchronise(model)
    assert type(model[0]) is nn.BatchNorm2d
