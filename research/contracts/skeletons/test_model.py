"""What my_method is, and what every network promises; run with pytest, in this folder."""

from pathlib import Path

import pytest
import torch
from my_method import MyMethod

from research.contracts.check import check


def test_its_classifier_sees_four_times_the_width():
    assert MyMethod(10, (1, 8, 8), width=4).classifier.in_features == 16


def test_any_size_of_image_passes():
    for side in (8, 33):
        assert MyMethod(5, (3, side, side))(torch.zeros(2, 3, side, side)).shape == (2, 5)


def test_it_keeps_what_networks_promise():
    for result in check([Path(__file__).with_name("my_method.py")]):
        if result.outcome == "broken":
            pytest.fail(f"{result.promise}: {result.why}")
