"""What a study can see: the smallest difference that so many seeds show, and the seeds that a difference takes.

For two-sided t tests (noncentral t; Cohen 1988, chapter 2). Where several contrasts are shown together, each is tested
as strictly as the first step of Holm's procedure tests it: with (1 - ``level``) / ``comparisons`` for a false alarm.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

MOST_SEEDS = 100_000  # beyond which nobody trains


def smallest_difference(sd: float, n: int, power: float = 0.8, level: float = 0.95, comparisons: int = 1) -> float:
    """The smallest true difference that ``n`` paired seeds show with this power, in the units of ``sd``.

    ``sd`` is the standard deviation of the paired differences. NaN below two seeds.
    """
    return sd / math.sqrt(n) * errors_seen(n - 1, power, level, comparisons) if n > 1 else math.nan


def seeds_needed(sd: float, difference: float, power: float = 0.8, level: float = 0.95, comparisons: int = 1) -> float:
    """The fewest paired seeds that show a true ``difference`` with this power; ``sd`` as above.

    For seeds that cannot be paired, ``sd`` is the root of the sum of both variances, and so many are needed of either.
    NaN without a deviation or a difference; infinite beyond any number that somebody trains.
    """
    if not (sd > 0 and abs(difference) > 0):
        return math.nan

    def enough(n: int) -> bool:
        return smallest_difference(sd, n, power, level, comparisons) <= abs(difference)

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def errors_seen(df: float, power: float = 0.8, level: float = 0.95, comparisons: int = 1) -> float:
    """The true difference, in standard errors, that a t test of ``df`` degrees of freedom shows with this power."""
    if not df > 0:
        return math.nan
    critical = stats.t.isf((1 - level) / max(1, comparisons) / 2, df)

    def lacking(shift: float) -> float:
        return power - stats.ncf.sf(critical**2, 1, df, shift**2)  # of t²: scipy's noncentral t is NaN in places

    return float(optimize.brentq(lacking, 1e-3, 40 * critical))  # scipy's noncentral F is no probability at 0
