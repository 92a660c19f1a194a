import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from research.measures.calibration import cross_entropy, reliability

# two classes, so a logit gap of log(p / (1 - p)) is a confidence of p
CONFIDENCES = np.array([0.6, 0.6, 0.7, 0.9, 0.9, 0.9, 0.9, 1.0])
RIGHT = np.array([1, 0, 1, 1, 1, 1, 0, 1], dtype=bool)
TARGETS = np.where(RIGHT, 0, 1)


def logits_of(confidences):
    with np.errstate(divide="ignore"):
        gap = np.log(confidences) - np.log1p(-confidences)
    return np.stack([np.minimum(gap, 800), np.zeros_like(gap)], axis=1)


def test_bins_and_error_equal_the_hand_computed_case():
    found = reliability(logits_of(CONFIDENCES), TARGETS, bins=4)
    np.testing.assert_array_equal(found.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found.count, [0, 0, 3, 5])
    np.testing.assert_allclose(found.confidence, [np.nan, np.nan, 1.9 / 3, 4.6 / 5], rtol=1e-12)
    np.testing.assert_allclose(found.accuracy, [np.nan, np.nan, 2 / 3, 4 / 5], rtol=1e-12)
    assert found.error == pytest.approx((3 * (2 / 3 - 1.9 / 3) + 5 * (4.6 / 5 - 4 / 5)) / 8, rel=1e-12)  # 0.0875


def test_certain_and_undecided_samples_belong_to_a_bin():
    undecided = reliability(np.zeros((3, 4)), np.array([0, 0, 1]), bins=4)  # confidence 1/4, the first class chosen
    np.testing.assert_array_equal(undecided.count, [3, 0, 0, 0])
    assert undecided.error == pytest.approx(2 / 3 - 1 / 4)
    certain = reliability(np.array([[1e4, -1e4]]), np.array([0]), bins=10)
    assert certain.count[-1] == 1 and certain.error == 0


def test_cross_entropy_equals_the_hand_computed_case():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    assert cross_entropy(logits, np.array([0, 2])) == pytest.approx((np.log(2) + np.log(10)) / 2)
    p = np.sqrt([0.5, 0.25, 0.25])  # alpha = 1/2: probabilities to the power 1/2, normalised
    assert cross_entropy(logits[:1], np.array([0]), alpha=0.5) == pytest.approx(-np.log(p[0] / p.sum()))
    assert np.isfinite(cross_entropy(np.array([[1e5, -1e5]], dtype=np.float32), np.array([1])))


Z = arrays(np.float64, (7, 3), elements=st.floats(-30, 30))
Y = arrays(np.int64, (7,), elements=st.integers(0, 2))


@given(Z, Y, st.floats(0.1, 3), st.integers(1, 20))
def test_every_sample_is_in_one_bin_and_bins_hold_their_means(logits, targets, alpha, bins):
    found = reliability(logits, targets, alpha, bins)
    filled = found.count > 0
    assert found.count.sum() == len(targets) and 0 <= found.error <= 1
    assert (found.confidence[filled] >= found.edges[:-1][filled] - 1e-12).all()
    assert (found.confidence[filled] <= found.edges[1:][filled] + 1e-12).all()


@given(Z, Y, st.floats(0.1, 3), st.floats(-100, 100))
def test_shifting_all_logits_of_a_sample_changes_nothing(logits, targets, alpha, shift):
    assert cross_entropy(logits + shift, targets, alpha) == pytest.approx(
        cross_entropy(logits, targets, alpha), abs=1e-9
    )
    assert cross_entropy(alpha * logits, targets) == pytest.approx(cross_entropy(logits, targets, alpha), abs=1e-12)
