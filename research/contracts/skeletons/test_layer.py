"""What my_method is, and what every layer promises; run with pytest, in this folder."""

from pathlib import Path

import pytest
import torch
from my_method import MyMethod

from research.contracts.check import check
from research.layers.base import Geometry


def test_its_kernel_has_the_rank_that_was_asked_for():
    kernel = MyMethod(Geometry(8, 16, (3, 3)), rank=0.25).kernel()
    assert torch.linalg.matrix_rank(kernel.flatten(1)) == 4


def test_it_keeps_what_layers_promise():
    for result in check([Path(__file__).with_name("my_method.py")]):
        if result.outcome == "broken":
            pytest.fail(f"{result.promise}: {result.why}")
