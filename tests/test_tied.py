"""Tied weights: balanced maps, the bank's gradient against golden numbers, and the method in whole runs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from research.layers.tied import balanced_index, bank_size, tie

GOLDEN = Path(__file__).parent / "golden" / "sparse"


def golden(name) -> tuple[dict, dict[str, torch.Tensor]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return json.loads((GOLDEN / f"{name}.json").read_text()), tensors


def bank_of(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize(
    ("name", "layer"), [("tied_fc", nn.Linear(30, 20)), ("tied_conv_gran4", nn.Conv2d(4, 6, 3, padding=1))]
)
def test_output_and_bank_gradient_equal_the_reference(name, layer):
    about, arrays = golden(name)
    tie(layer, arrays["weight_alloc"])
    bank = bank_of(layer)
    assert list(bank.shape) == [*about["bank_shape"], 1]
    with torch.no_grad():
        bank.copy_(arrays["bank"][:, None])
        layer.bias.copy_(arrays.get("bias", torch.zeros_like(layer.bias)))
    torch.testing.assert_close(layer.weight, arrays["expanded"], rtol=0, atol=0)
    y = layer(arrays["x"])
    torch.testing.assert_close(y, arrays["y"], rtol=1e-5, atol=1e-6)
    y.backward(arrays["grad_y"])
    torch.testing.assert_close(bank.grad.flatten(), arrays["grad_bank"], rtol=1e-5, atol=1e-5)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 9))
def test_every_row_is_used_equally_often_up_to_one(units, size, seed):
    size = min(units, size)
    uses = torch.bincount(balanced_index(units, size, torch.Generator().manual_seed(seed)), minlength=size)
    assert len(uses) == size
    assert uses.max() - uses.min() <= 1


def test_the_map_is_random_over_units():
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([balanced_index(12, 4, generator) for _ in range(4000)])
    expected = 4000 / 4
    for unit in range(12):
        counts = torch.bincount(rows[:, unit], minlength=4)
        assert ((counts - expected) ** 2 / expected).sum() < 21.1  # chi-square, 3 degrees: p = 1e-4


@given(st.sampled_from([1, 9]), st.integers(1, 24), st.integers(0, 9))
def test_weight_has_few_values_and_its_gradient_is_the_sum_over_uses(width, size, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(4, 6, 3, bias=False)
    units = conv.weight.numel() // width
    index = balanced_index(units, size, generator)
    before = conv.weight.detach().clone()
    tie(conv, index)
    bank = bank_of(conv)
    assert bank.shape == (size, width)
    assert torch.equal(conv.weight.view(units, width), bank[index])
    assert torch.isin(conv.weight, before).all()  # nothing but values of the layer's own initialisation
    grad = torch.randn(conv.weight.shape, generator=generator)
    conv.weight.backward(grad)
    sums = torch.zeros(size, width, dtype=torch.float64).index_add_(0, index, grad.double().view(units, width))
    torch.testing.assert_close(bank.grad.double(), sums, rtol=1e-5, atol=1e-5)


def test_bank_sizes_of_the_published_runs():
    assert [bank_size(n, 0.98) for n in (235200, 30000, 1000)] == [4704, 600, 20]
    assert bank_size(10, 0.99) == 1


def test_tied_layer_survives_copy_and_state():
    conv = nn.Conv2d(4, 6, 3)
    tie(conv, balanced_index(216, 20))
    other = copy.deepcopy(conv)
    assert torch.equal(other.weight, conv.weight)
    assert bank_of(other) is not bank_of(conv)
    again = nn.Conv2d(4, 6, 3)
    tie(again, balanced_index(216, 20))
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again.weight, conv.weight)
