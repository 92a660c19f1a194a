"""Scores at initialisation against their formulas, written out; and that they leave a network as it was."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from research import create_model
from research.layers.masked import attach_mask
from research.measures.zero_cost import gradient_norm, naswot, synflow


def mlp(seed=0, bias=True):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 6, bias=bias), nn.ReLU(), nn.Linear(6, 3))


def test_gradient_norm_sums_the_norms_of_the_weights_and_not_of_the_biases():
    model, x, targets = mlp(), torch.randn(8, 5), torch.randint(3, (8,))
    F.cross_entropy(model(x), targets).backward()
    by_hand = sum(layer.weight.grad.norm() for layer in model if isinstance(layer, nn.Linear))
    assert gradient_norm(model, x, targets) == pytest.approx(float(by_hand), rel=1e-6)


def test_gradient_norm_of_masked_weights_counts_the_living_ones():
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)
    mask = torch.rand(3, 5) < 0.4
    x, targets = torch.randn(8, 5), torch.randint(3, (8,))
    effective = (linear.weight * mask).detach().requires_grad_()
    F.cross_entropy(F.linear(x, effective, linear.bias), targets).backward()
    attach_mask(linear, mask)
    assert gradient_norm(linear, x, targets) == pytest.approx(float((effective.grad * mask).norm()), rel=1e-6)


@given(st.integers(0, 1000), st.integers(1, 5))
def test_synflow_is_layers_times_the_sum_over_paths(seed, layers):
    torch.manual_seed(seed)
    widths = [4, *torch.randint(1, 6, (layers,)).tolist()]
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in zip(widths[:-1], widths[1:], strict=True)))
    paths = torch.ones(4, dtype=torch.float64)
    for layer in model:
        paths = layer.weight.detach().double().abs() @ paths
    assert synflow(model, (4,)) == pytest.approx(math.log10(layers * float(paths.sum())), abs=1e-9)


def test_synflow_does_not_see_the_sign_of_weights_nor_normalisation():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False))
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(4, affine=False), *plain[1:])
    before = synflow(plain, (3, 6, 6))
    assert synflow(normed, (3, 6, 6)) == pytest.approx(before, abs=1e-9)
    with torch.no_grad():
        plain[0].weight.neg_()
    assert synflow(plain, (3, 6, 6)) == pytest.approx(before, abs=1e-9)


def test_synflow_of_a_network_that_is_cut_through_is_minus_infinity():
    model = mlp(bias=False)
    with torch.no_grad():
        model[2].weight.zero_()
        model[4].bias.zero_()
    assert synflow(model, (5,)) == -math.inf


def test_naswot_is_the_log_determinant_of_agreements():
    model, x = mlp(), torch.randn(6, 5)
    first = model[0](x)
    second = model[2](first.relu())
    codes = torch.cat([first > 0, second > 0], dim=1)
    kernel = torch.tensor([[float((a == b).sum()) for b in codes] for a in codes], dtype=torch.float64)
    assert naswot(model, x) == pytest.approx(float(torch.linalg.slogdet(kernel).logabsdet), rel=1e-9)


def test_naswot_sees_activations_that_are_functions_or_in_place():
    class Functional(nn.Module):
        def __init__(self, layers, relu):
            super().__init__()
            self.layers, self.relu = layers, relu

        def forward(self, x):
            return self.layers[4](self.relu(self.layers[2](self.relu(self.layers[0](x)))))

    model, x = mlp(), torch.randn(6, 5)
    for relu in (F.relu, torch.relu_, lambda v: F.leaky_relu(v, 0.0), nn.ReLU(inplace=True)):
        assert naswot(Functional(model, relu), x) == naswot(model, x)


def test_naswot_of_inputs_that_cannot_be_told_apart_is_minus_infinity():
    assert naswot(mlp(), torch.ones(4, 5)) == -math.inf


@pytest.mark.parametrize("name", ["mnist_mlp", "resnet8", "dense_mlp", "mobilenet_v2"])
def test_scores_leave_weights_statistics_mode_and_random_numbers_as_they_were(name):
    shape = (1, 28, 28) if "mlp" in name else (3, 32, 32)
    model = create_model(name, num_classes=10, input_shape=shape).eval()
    x, targets = torch.randn(4, *shape), torch.randint(10, (4,))
    x = x.flatten(1) if name == "dense_mlp" else x
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    scores = gradient_norm(model, x, targets), synflow(model, tuple(x.shape[1:])), naswot(model, x)
    assert all(map(math.isfinite, scores))
    assert torch.equal(random, torch.get_rng_state()) and not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
