"""Rank correlations with intervals from resampled networks: no distribution of scores is assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from research.frames.comparison import Correlation, correlation

RESAMPLES = 2000


def rank_correlation(x: Sequence[float], y: Sequence[float], given: Any = None, level: float = 0.95) -> Correlation:
    """Spearman's correlation of two columns (N,), partial where a third (N, K) is ``given``; interval by bootstrap.

    Value, p and n are those of :func:`research.frames.comparison.correlation`; the interval is the central ``level``
    over resamples of the N points (percentiles; resamples in which something does not vary are left out). NaN where
    fewer than K + 4 points are whole.
    """
    given = np.empty((len(x), 0)) if given is None else np.asarray(given, dtype=float).reshape(len(x), -1)
    found = correlation(x, y, given if given.shape[1] else None)
    table = np.column_stack([x, y, given]).astype(float)
    table = table[~np.isnan(table).any(axis=1)]
    n, held = len(table), given.shape[1]
    if n < held + 4 or math.isnan(found.value):
        return found._replace(low=math.nan, high=math.nan)
    drawn = table[np.random.default_rng(0).integers(n, size=(RESAMPLES, n))]  # (resamples, N, 2 + K)
    ranks = stats.rankdata(drawn, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    held_out = ranks[..., 2:]
    left = ranks[..., :2] - held_out @ (np.linalg.pinv(held_out) @ ranks[..., :2])
    spread = np.sqrt((left**2).sum(axis=1))  # (resamples, 2)
    varies = (spread > 1e-9 * np.sqrt((ranks[..., :2] ** 2).sum(axis=1))).all(axis=1)
    values = (left[varies, :, 0] * left[varies, :, 1]).sum(axis=1) / spread[varies].prod(axis=1)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else (math.nan, math.nan)
    return found._replace(low=float(low), high=float(high))
