"""Counts of mistakes by their definitions written out, and the agreement of classifiers that are made up."""

import math

import numpy as np
import pytest

from research.measures.mistakes import agreement, by_class, confident_mistakes, confusion


def test_confusion_counts_every_image_once_in_the_row_of_its_class():
    predicted, targets = np.array([0, 1, 2, 1, 1, 0]), np.array([0, 1, 1, 2, 1, 0])
    assert confusion(predicted, targets, 4).tolist() == [[2, 0, 0, 0], [0, 2, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_class_has_its_accuracy_with_wilsons_interval_its_precision_and_what_it_is_taken_for():
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 3, 0]])
    first, second, third = by_class(matrix)
    assert (first.images, first.accuracy, first.precision, first.taken_for, first.mistaken) == (
        10,
        80,
        pytest.approx(100 * 8 / 9),
        1,
        2,
    )
    z, n, p = 1.959964, 10, 0.8
    centre, reach = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (first.low, first.high) == pytest.approx(
        (100 * (centre - reach) / (1 + z**2 / n), 100 * (centre + reach) / (1 + z**2 / n))
    )
    assert second.precision == pytest.approx(100 * 9 / 14)
    assert third.accuracy == 0 and math.isnan(third.precision) and (third.taken_for, third.mistaken) == (1, 3)
    empty = by_class(np.array([[0, 0], [0, 5]]))[0]
    assert math.isnan(empty.accuracy) and math.isnan(empty.low) and (empty.taken_for, empty.mistaken) == (-1, 0)


def test_mistakes_come_in_order_of_their_confidence_and_right_images_not_at_all():
    logits = np.array([[0.0, 1.0], [3.0, 0.0], [0.0, 5.0], [2.0, 0.0]])
    places, confidence = confident_mistakes(logits, np.array([0, 1, 1, 1]))
    assert places.tolist() == [1, 3, 0]
    np.testing.assert_allclose(confidence, 1 / (1 + np.exp([-3.0, -2.0, -1.0])))


def test_agreement_is_cohens_kappa_for_classes_and_for_right_and_wrong():
    targets = np.array([0] * 50 + [1] * 50)
    ours, theirs = targets.copy(), targets.copy()
    ours[:10] = 1  # wrong
    theirs[5:15] = 1  # wrong on half of these, and on five others
    found = agreement(ours, theirs, targets)
    chance = 0.4 * 0.4 + 0.6 * 0.6
    assert (found.same_class, found.same_class_chance) == pytest.approx((0.9, chance))
    assert found.kappa == pytest.approx((0.9 - chance) / (1 - chance))
    reach = 1.959964 * math.sqrt(0.9 * 0.1 / 100) / (1 - chance)
    assert (found.kappa_low, found.kappa_high) == pytest.approx((found.kappa - reach, min(1, found.kappa + reach)))
    assert (found.both_right_or_wrong_chance, found.error_kappa) == pytest.approx((0.82, (0.9 - 0.82) / 0.18))
    assert (found.both_wrong, found.both_wrong_chance, found.same_mistake) == pytest.approx((0.05, 0.01, 1.0))


def test_independent_errors_show_what_chance_says_and_perfect_classifiers_have_no_kappa():
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 10, 100_000)
    ours, theirs = (
        np.where(draw.random(len(targets)) < 0.2, draw.integers(0, 10, len(targets)), targets) for _ in "ab"
    )
    found = agreement(ours, theirs, targets)
    assert found.error_kappa_low < 0 < found.error_kappa_high and abs(found.error_kappa) < 0.01
    assert found.both_wrong == pytest.approx(found.both_wrong_chance, abs=0.002)
    assert found.same_mistake == pytest.approx(1 / 9, abs=0.02) and found.kappa > 0.6
    perfect = agreement(targets, targets, targets)
    assert perfect.kappa == 1 and math.isnan(perfect.error_kappa) and math.isnan(perfect.same_mistake)
