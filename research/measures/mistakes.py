"""What a classifier gets wrong, and whether two get the same wrong. Pure functions of logits, predictions and labels.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import softmax


class OfClass(NamedTuple):
    """How the images of one class were classified, in percent; nan where there is none to count."""

    label: int
    images: int
    accuracy: float  # of its images (recall)
    low: float  # 95 % interval of the accuracy (Wilson 1927)
    high: float
    precision: float  # of the images that are said to be of this class
    taken_for: int  # the class that its mistakes name most often; -1 without mistakes
    mistaken: int  # how many of its images that is


class Agreement(NamedTuple):
    """Two classifiers on the same images. Rates are 0..1; ``_chance``: what independent ones of these rates would show.

    ``kappa`` is (agree - chance) / (1 - chance), of Cohen (1960) for the classes that they name, and of Geirhos, Meding
    and Wichmann (2020, "error consistency") for right and wrong. 0 is chance, 1 is always; the interval is 95 %.
    """

    images: int
    same_class: float
    same_class_chance: float
    kappa: float
    kappa_low: float
    kappa_high: float
    both_right_or_wrong: float
    both_right_or_wrong_chance: float
    error_kappa: float
    error_kappa_low: float
    error_kappa_high: float
    both_wrong: float
    both_wrong_chance: float
    same_mistake: float  # of the images that both get wrong, those that they take for the same class


def confusion(predicted: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) int64: images of the class of the row that were taken for that of the column."""
    pairs = np.asarray(targets, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def by_class(matrix: np.ndarray) -> list[OfClass]:
    """Every class of a confusion matrix (C, C), in order."""
    images, said, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    wrong = matrix - np.diag(right)
    found = []
    for label, (n, of, good, row) in enumerate(zip(images, said, right, wrong, strict=True)):
        ends = stats.binomtest(int(good), int(n)).proportion_ci(method="wilson") if n else (math.nan, math.nan)
        accuracy, precision = (100 * good / count if count else math.nan for count in (n, of))
        taken = int(row.argmax()) if row.any() else -1
        bounds = (100 * float(end) for end in ends)
        found.append(OfClass(label, int(n), float(accuracy), *bounds, float(precision), taken, int(row.max())))
    return found


def confident_mistakes(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The samples (M,) that were classified wrong, the most confident first, and their confidence (M,) in 0..1."""
    p = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    confidence = p.max(axis=1)
    wrong = np.flatnonzero(p.argmax(axis=1) != np.asarray(targets))
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return order, confidence[order]


def agreement(ours: np.ndarray, theirs: np.ndarray, targets: np.ndarray) -> Agreement:
    """Whether two classifiers, whose classes for the images are ``ours`` and ``theirs`` (N,), err alike.

    Errors of two networks always overlap to some degree: two that are wrong on a tenth of the images each share a
    hundredth by chance alone. The columns ``_chance`` say that share.
    """
    ours, theirs, targets = (np.asarray(each) for each in (ours, theirs, targets))
    right, right_other = ours == targets, theirs == targets
    same, chance, *kappa = _kappa(ours, theirs)
    alike, alike_chance, *error_kappa = _kappa(right, right_other)
    both = ~right & ~right_other
    mistakes = float((ours == theirs)[both].mean()) if both.any() else math.nan
    by_chance = float((~right).mean() * (~right_other).mean())
    overlap = (float(both.mean()), by_chance, mistakes)
    return Agreement(len(targets), same, chance, *kappa, alike, alike_chance, *error_kappa, *overlap)


def _kappa(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float, float, float]:
    """Share of equal values, that of chance, and Cohen's kappa with its 95 % interval; nan where chance is certain.

    The standard error is Cohen's: that of the share, the margins taken as known.
    """
    values = np.unique(np.concatenate([ours, theirs]))
    share = float((ours == theirs).mean())
    chance = float(sum((ours == value).mean() * (theirs == value).mean() for value in values))
    if chance == 1:
        return share, chance, math.nan, math.nan, math.nan
    kappa = (share - chance) / (1 - chance)
    reach = stats.norm.isf(0.025) * math.sqrt(share * (1 - share) / len(ours)) / (1 - chance)
    return share, chance, kappa, max(-1.0, kappa - reach), min(1.0, kappa + reach)
