"""Is one result larger than another? The one comparison behind all notebooks, figures and log entries.

:func:`compare` tests the contrasts that are shown together, :func:`games_howell` every two arms. :func:`correlation`
asks whether one number tells another, :func:`images` compares two networks on one test set.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from research.errors import UsageError, nearest
from research.frames.power import errors_seen, seeds_needed
from research.frames.statistics.t_tests import Difference, beyond, difference, holm

CANNOT_TELL = "cannot tell"
ARMS = ["arm", "against", "n", "n_against", "mean", "sd", "mean_against", "sd_against", "pairs", "r"]
TESTS = ["difference", "low", "high", "p", "p_holm", "effect", "test", "seen", "needed"]
EQUALITY = ["p_equal", "p_equal_holm", "verdict"]


def compare(
    results: Mapping[str, pd.Series],
    contrasts: Iterable[tuple[str, str]],
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """A row for each contrast (arm, against) of ``results``, an arm's values by seed; p is adjusted over all rows.

    ==========================  ======================================================================================
    ``arm n mean sd``           the arm, its seeds with a result, their mean and standard deviation
    ``against n_against ..``    the same of what it is compared with
    ``pairs r``                 seeds that both have, and the correlation over these: pairing takes about the part r
                                from the variance of the difference, and nothing where it is 0
    ``difference low high``     mean of arm minus against, and its interval at ``level`` by Student's t
    ``p p_holm``                two-sided, of no difference; adjusted over the rows (Holm 1979)
    ``effect``                  d_z, the difference in deviations of paired differences; of unpaired arms Hedges' g
    ``test``                    "paired t" over two common seeds or more, else "Welch t"; "" where neither can be
    ``seen``                    the smallest true difference that is shown with 80 % power
    ``needed``                  seeds that show ``margin`` with 80 % power
    ``p_equal p_equal_holm``    of a true difference beyond ±``margin`` (two one-sided tests: Schuirmann 1987); adjusted
    ``verdict``                 what may be said of the row: :func:`verdict`
    ==========================  ======================================================================================

    ``seen`` and ``needed`` are those of a test as strict as so many rows ask for. NaN is what has too few seeds or no
    margin, and every test where all differences are one number: quantised results show no deviation then, and not that
    there is none.

    Raises:
        UsageError: a contrast names an arm that ``results`` do not have.
    """
    margin = math.nan if margin is None else abs(margin)
    contrasts = list(contrasts)
    rows = [_contrast(_arm(results, arm), _arm(results, against)) for arm, against in contrasts]
    table = pd.DataFrame(rows, columns=[*ARMS[2:], *Difference._fields])
    table = table.astype({name: float for name in table if name not in ("n", "n_against", "pairs", "test")})
    table.insert(0, "arm", [arm for arm, _ in contrasts])
    table.insert(1, "against", [against for _, against in contrasts])
    reach = table["error"] * stats.t.isf((1 - level) / 2, table["df"])
    table = table.assign(low=table["difference"] - reach, high=table["difference"] + reach)
    table["p"] = 2 * stats.t.sf(abs(table["difference"]) / table["error"], table["df"])
    table["p_equal"] = [beyond(row.difference, row.error, row.df, margin) for row in table.itertuples()]
    table["p_holm"], table["p_equal_holm"] = holm(table["p"]), holm(table["p_equal"])
    strict = {"level": level, "comparisons": int(table["p"].notna().sum())}
    table["seen"] = [row.error * errors_seen(row.df, **strict) for row in table.itertuples()]
    table["needed"] = [seeds_needed(spread, margin, **strict) for spread in table["spread"]]
    table["verdict"] = [verdict(row, margin, level) for row in table.itertuples()]
    return table[[*ARMS, *TESTS, *EQUALITY]]


def each_arm(
    results: Mapping[str, pd.Series],
    against: Mapping[str, str],
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """A row for every arm of ``results``: what :func:`compare` says of it beside ``against[arm]``, if that is anything.

    ``mean_low`` and ``mean_high`` are the interval of the arm's mean; the verdict of an arm by itself is "".
    """
    compared = compare(results, against.items(), margin=margin, level=level)
    rows = []
    for name in results:
        values = _arm(results, name)
        rows.append((name, len(values), values.std(), *mean_interval(values, level)))
    table = pd.DataFrame(rows, columns=["arm", "n", "sd", "mean", "mean_low", "mean_high"])
    table = table.merge(compared.drop(columns=["n", "mean", "sd"]), on="arm", how="left")
    return table.fillna({"against": "", "test": "", "verdict": "", "pairs": 0}).astype({"pairs": int})


def verdict(row: Any, margin: float = math.nan, level: float = 0.95) -> str:
    """What may be said of a row of :func:`compare`: higher or lower, equal within the margin, both, or neither."""
    said = [] if not row.p_holm <= 1 - level else ["higher" if row.difference > 0 else "lower"]
    said += [f"equal within {margin:g}"] if row.p_equal_holm <= 1 - level else []
    return " but ".join(said) or CANNOT_TELL


def _arm(results: Mapping[str, pd.Series], name: str) -> pd.Series:
    if name not in results:
        raise UsageError(f"no arm is called {name!r}{nearest(name, results)}")
    return results[name].dropna().astype(float)


def mean_interval(values: pd.Series, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a series and its interval by Student's t, which takes two values that differ."""
    values = values.dropna()
    error = values.sem() or math.nan
    reach = error * stats.t.isf((1 - level) / 2, len(values) - 1)
    return values.mean(), values.mean() - reach, values.mean() + reach


def _contrast(ours: pd.Series, theirs: pd.Series) -> tuple[float | str, ...]:
    """ARMS without the names, and the fields of a Difference."""
    pairs, r, found = difference(ours, theirs)
    each = len(ours), len(theirs), ours.mean(), ours.std(), theirs.mean(), theirs.std()
    return *each, pairs, r, *found


def games_howell(results: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Every two arms, whose deviations may differ: arm, against, difference, p (Games and Howell 1976).

    p is adjusted for all pairs. Arms of fewer than two values, or without any deviation, are left out.
    """
    samples = {name: values.dropna().to_numpy(float) for name, values in results.items()}
    samples = {name: values for name, values in samples.items() if len(values) > 1 and np.ptp(values) > 0}
    found = stats.tukey_hsd(*samples.values(), equal_var=False) if len(samples) > 1 else None
    names = list(samples)
    rows = [
        (names[i], names[j], float(found.statistic[i, j]), float(found.pvalue[i, j]))
        for i, j in itertools.combinations(range(len(names)), 2)
    ]
    return pd.DataFrame(rows, columns=["arm", "against", "difference", "p"])


class Correlation(NamedTuple):
    """A correlation of ``n`` points with its interval, and p of none."""

    value: float
    low: float
    high: float
    p: float
    n: int


def correlation(
    x: Sequence[float],
    y: Sequence[float],
    given: Any = None,
    method: Literal["spearman", "pearson"] = "spearman",
    level: float = 0.95,
) -> Correlation:
    """Of two columns (N,); partial, with what a third (N,) or several (N, K) explain linearly taken out of both.

    The interval is Fisher's z, of ranks with the error of Bonett and Wright (2000), with a point less for each of the
    ``given``. Points with a missing value are left out. NaN with fewer than K + 3 of them (intervals: K + 4), or where
    nothing varies.
    """
    table = np.column_stack([x, y, *([] if given is None else [given])]).astype(float)
    table = table[~np.isnan(table).any(axis=1)]
    n, held = len(table), table.shape[1] - 2
    if method == "spearman" and n:
        table = stats.rankdata(table, axis=0)
    if n - held < 3:
        return Correlation(*[math.nan] * 4, n)
    design = np.column_stack([np.ones(n), table[:, 2:]])
    left = table[:, :2] - design @ np.linalg.lstsq(design, table[:, :2])[0]
    if (left.std(axis=0) <= 1e-9 * table[:, :2].std(axis=0)).any():
        return Correlation(*[math.nan] * 4, n)
    r = float(np.clip(np.corrcoef(left.T)[0, 1], -1, 1))
    df = n - 2 - held
    p = 2 * stats.t.sf(abs(r) * math.sqrt(df / (1 - r**2)), df) if abs(r) < 1 else 0.0
    error = math.sqrt((1 + r**2 / 2 if method == "spearman" else 1) / (df - 1)) if df > 1 else math.nan
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)) + np.array([-1, 1]) * error * stats.norm.isf((1 - level) / 2)
    return Correlation(r, *map(float, np.tanh(z)), float(p), n)


class Images(NamedTuple):
    """Two networks on ``n`` images: those that only one gets right, and ours minus theirs in points of accuracy."""

    n: int
    only_ours: int
    only_theirs: int
    difference: float
    low: float
    high: float
    p: float


def images(ours: Sequence[bool], theirs: Sequence[bool], level: float = 0.95) -> Images:
    """Two networks by which images (N,) of one test set they get right.

    ``p`` is McNemar's, exact; the interval that of Agresti and Min (2005), which a bootstrap over images agrees with.
    Both are about other images of the same source for these two networks, and say nothing about other seeds.
    """
    ours, theirs = np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    n, plus, minus = len(ours), int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = float(stats.binomtest(plus, plus + minus).pvalue) if plus + minus else 1.0
    share = (plus - minus) / (n + 2)  # half an image more in each of the four cells
    error = math.sqrt(((plus + minus + 1) / (n + 2) - share**2) / (n + 2))
    low, high = share + np.array([-1, 1]) * error * stats.norm.isf((1 - level) / 2)
    return Images(n, plus, minus, 100 * (plus - minus) / n, 100 * max(-1.0, low), 100 * min(1.0, high), p)
