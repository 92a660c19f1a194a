"""One difference tested: paired by seed where it can be, else by Welch's test; and p adjusted for several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Difference(NamedTuple):
    """Ours minus theirs, its standard error (``spread`` over the root of n) and degrees of freedom, and its size."""

    test: str = ""
    difference: float = math.nan
    error: float = math.nan
    df: float = math.nan
    spread: float = math.nan
    effect: float = math.nan


def difference(ours: pd.Series, theirs: pd.Series) -> tuple[int, float, Difference]:
    """Of two results by seed: how many seeds it is taken over that both have (else 0), their correlation, and it."""
    both = pd.concat([ours, theirs], axis=1, join="inner").to_numpy()
    if len(both) < 2 and not len(both) == len(ours) == len(theirs):
        return 0, math.nan, _welch(ours.to_numpy(), theirs.to_numpy())
    varies = len(both) > 2 and (np.ptp(both, axis=0) > 0).all()
    return len(both), float(np.corrcoef(both.T)[0, 1]) if varies else math.nan, _paired(both)


def _paired(both: np.ndarray) -> Difference:
    """Of two columns (N, 2), row by row."""
    each = both[:, 0] - both[:, 1]
    if len(each) < 2:
        return Difference(difference=float(each.mean())) if len(each) else Difference()
    mean, sd = float(each.mean()), float(each.std(ddof=1))
    if sd <= 1e-12 * np.abs(both).max():  # rounding of equal differences
        return Difference(difference=mean)
    return Difference("paired t", mean, sd / math.sqrt(len(each)), len(each) - 1, sd, mean / sd)


def _welch(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Of two means whose deviations may differ (Welch 1947)."""
    if not min(len(ours), len(theirs)):
        return Difference()
    mean = float(ours.mean() - theirs.mean())
    if min(len(ours), len(theirs)) < 2 or not max(np.ptp(ours), np.ptp(theirs)):
        return Difference(difference=mean)
    free = np.array([len(ours), len(theirs)]) - 1
    variances = np.array([ours.var(ddof=1), theirs.var(ddof=1)])
    parts = variances / (free + 1)
    df = parts.sum() ** 2 / (parts**2 / free).sum()
    hedges = (1 - 3 / (4 * free.sum() - 1)) * mean / math.sqrt((variances * free).sum() / free.sum())
    return Difference("Welch t", mean, math.sqrt(parts.sum()), df, math.sqrt(variances.sum()), hedges)


def beyond(difference: float, error: float, df: float, margin: float) -> float:
    """p of a true difference beyond ±``margin``: the larger of two one-sided t tests."""
    return float(np.maximum(*stats.t.sf((margin + np.array([difference, -difference])) / error, df)))


def holm(p: Sequence[float]) -> np.ndarray:
    """p adjusted for as many tests (Holm 1979); NaN stays, and is no test."""
    p = np.asarray(p, dtype=float)
    adjusted, order = np.full(len(p), math.nan), np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
