"""The network of CPU minutes: what its fixed filters do to natural images, and what its first weights pass on."""

import numpy as np
import pytest
import torch
from torch import nn

from research.config import Config
from research.models import create_model
from research.models.dct_cnn import NEIGHBOURS, PATCH, whitening_filters
from research.training.prepare import weight_decays


def chain(count: int, seed: int = 0) -> np.ndarray:
    """Patches (count, 1, 4, 4) of variance 1 whose pixels are correlated as the filters take them to be."""
    x = np.arange(PATCH)
    root = np.linalg.cholesky(NEIGHBOURS ** np.abs(x[:, None] - x))
    return root @ np.random.default_rng(seed).standard_normal((count, 1, PATCH, PATCH)) @ root.T


def test_filters_whiten_what_natural_images_vary_along():
    filters = whitening_filters(1, 6).reshape(6, -1).astype(np.float64)
    covariance = np.cov(filters @ chain(100_000).reshape(len(chain(100_000)), -1).T)
    deviations = np.sqrt(np.diag(covariance))
    correlations = covariance / np.outer(deviations, deviations)
    assert (deviations > 0.95).all() and (deviations < 1.05).all()
    assert np.abs(correlations - np.eye(6)).max() < 0.3  # nearly: the DCT diagonalises such a chain but for a little


def test_filters_come_with_falling_variance_and_the_first_one_is_brightness():
    for channels in (1, 3):
        filters = whitening_filters(channels, 16).astype(np.float64)
        assert np.allclose(filters[0], filters[0, 0, 0, 0])
        gains = np.linalg.norm(filters.reshape(16, -1), axis=1)
        assert (np.diff(gains) >= -1e-6).all()
        directions = filters.reshape(16, -1) / gains[:, None]
        np.testing.assert_allclose(directions @ directions.T, np.eye(16), atol=1e-6)


def test_the_first_filters_are_fixed_in_pairs_of_opposite_sign():
    model = create_model("dct_cnn")
    stem = model[0]
    assert torch.equal(stem.weight[:24], -stem.weight[24:])
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert stem.weight.grad is None
    assert all(p.grad is not None for name, p in model.named_parameters() if name != "0.weight")
    assert stem.weight not in weight_decays(model, Config())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 32, 32)])
def test_any_small_image_passes(shape):
    assert create_model("dct_cnn", 7, shape).eval()(torch.zeros(2, *shape)).shape == (2, 7)


def test_dirac_passes_its_channels_on_and_draws_the_others():
    convolutions = [m for m in create_model("dct_cnn").modules() if isinstance(m, nn.Conv2d)][1:]
    x = torch.randn(1, 48, 8, 8)
    torch.testing.assert_close(convolutions[0](x)[:, :48], x)  # 48 channels to 64
    assert convolutions[0].weight[48:].std() > 0.01
    centre = torch.zeros(3, 3)
    centre[1, 1] = 1
    assert torch.equal(convolutions[1].weight, torch.eye(64)[:, :, None, None] * centre)


def test_normal_has_the_variance_of_he():
    torch.manual_seed(0)
    model = create_model("dct_cnn", init="normal", widths=[32], depth=3)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]
    assert len(convolutions) == 3
    for conv in convolutions:
        assert conv.weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)


def test_without_batch_norm_convolutions_have_a_bias():
    model = create_model("dct_cnn", batch_norm=False)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(conv.bias is not None for conv in convolutions)
    assert [conv.bias is None for conv in create_model("dct_cnn").modules() if isinstance(conv, nn.Conv2d)][1:] == [
        True
    ] * 4
