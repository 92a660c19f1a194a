"""What my_method computes, and what every method promises; run with pytest, in this folder."""

from pathlib import Path

import pytest
import torch
from my_method import centralised

from research.contracts.check import check


def test_a_centralised_gradient_has_mean_zero_in_every_unit():
    gradient = torch.randn(4, 3, 3, 3)
    assert centralised(gradient).mean((1, 2, 3)).abs().max() < 1e-6
    assert torch.equal(centralised(gradient, share=0.0), gradient)


def test_a_vector_stays_as_it_is():
    gradient = torch.randn(4)
    assert torch.equal(centralised(gradient), gradient)


def test_it_keeps_what_methods_promise():
    for result in check([Path(__file__).with_name("my_method.py")]):
        if result.outcome == "broken":
            pytest.fail(f"{result.promise}: {result.why}")
