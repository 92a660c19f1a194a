"""Controls of GraM: what each keeps of M and what it loses."""

import math

import pytest
import torch

from research.measures.tap_controls import entropy, placed, squared_distances

M = torch.tensor([[0.2, 0.9, 0.3], [1.4, 3.6, 1.0], [0.1, 0.8, 0.7]])
M_5 = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) + 0.1
M_5 = M_5 / M_5.mean()


@pytest.mark.parametrize("m", [M, M_5], ids=["3x3", "5x5"])
@pytest.mark.parametrize("place", ["permuted", "radial", "gaussian"])
def test_every_control_keeps_the_mean_and_no_control_the_places(m, place):
    control = placed(m, place, torch.Generator().manual_seed(1))
    assert control.dtype == m.dtype and control.shape == m.shape
    assert control.mean().item() == pytest.approx(1, abs=1e-6)
    assert not torch.allclose(control, m)


def test_permuted_keeps_the_values_and_follows_its_generator():
    one, again, other = (placed(M, "permuted", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.flatten().sort().values, M.flatten().sort().values)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_radial_keeps_the_mean_of_every_distance():
    radial = placed(M, "radial")
    assert radial[1, 1] == M[1, 1]
    torch.testing.assert_close(radial[0, 1], (M[0, 1] + M[1, 0] + M[1, 2] + M[2, 1]) / 4)
    torch.testing.assert_close(radial[2, 0], (M[0, 0] + M[0, 2] + M[2, 0] + M[2, 2]) / 4)
    torch.testing.assert_close(placed(radial, "radial"), radial)


@pytest.mark.parametrize("m", [M, M_5], ids=["3x3", "5x5"])
def test_gaussian_falls_with_distance_and_has_the_entropy(m):
    gaussian = placed(m, "gaussian")
    assert entropy(gaussian).item() == pytest.approx(entropy(m).item(), abs=1e-6)
    squares = squared_distances(*m.shape)
    slopes = (gaussian.double().max().log() - gaussian.double().log())[squares > 0] / squares[squares > 0]
    torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes), rtol=1e-4, atol=0)  # log M falls with squares


def test_equal_taps_stay_equal():
    ones = torch.ones(3, 3)
    assert entropy(ones).item() == pytest.approx(math.log(9))
    for place in ("permuted", "radial", "gaussian"):
        torch.testing.assert_close(placed(ones, place, torch.Generator()), ones, rtol=0, atol=1e-5)


def test_an_undefined_tap_leaves_everything_as_it_is():
    undefined = M.clone()
    undefined[0, 0] = torch.nan
    for place in ("permuted", "radial", "gaussian"):
        torch.testing.assert_close(placed(undefined, place, torch.Generator()), undefined, equal_nan=True)
