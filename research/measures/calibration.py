"""Calibration: does a network that says 90 % get nine in ten right? Pure functions of logits and labels.

Shapes: N samples, C classes, B bins. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax


@dataclass(frozen=True)
class Reliability:
    """Samples sorted into B bins of equal width by confidence; nan where a bin is empty."""

    edges: np.ndarray  # (B + 1,): bin b holds confidences in (edges[b], edges[b + 1]]
    count: np.ndarray  # (B,) int64
    confidence: np.ndarray  # (B,): mean confidence of the bin's samples
    accuracy: np.ndarray  # (B,): share of them that are right

    @property
    def error(self) -> float:
        """Expected calibration error: mean over samples of their bin's |accuracy - confidence| (Naeini et al. 2015)."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))


def reliability(logits: np.ndarray, targets: np.ndarray, alpha: float = 1.0, bins: int = 15) -> Reliability:
    """Confidence against accuracy of softmax(alpha z), as Guo et al. (2017) draw it.

    ``logits`` (N, C) and ``targets`` (N,) of a validation set. Confidence is the largest probability, and the sample is
    right when that is its label's; equal ones count as the first class.
    """
    p = np.exp(log_softmax(alpha * np.asarray(logits, dtype=np.float64), axis=1))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(targets)
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin
        means = [np.bincount(bin_of, values, minlength=bins) / count for values in (confidence, right)]
    return Reliability(edges, count, *means)


def cross_entropy(logits: np.ndarray, targets: np.ndarray, alpha: float = 1.0) -> float:
    """CE(alpha z): mean of -log softmax(alpha z) at the label, in nats."""
    log_p = log_softmax(alpha * np.asarray(logits, dtype=np.float64), axis=1)
    return float(-np.take_along_axis(log_p, np.asarray(targets)[:, None], axis=1).mean())
