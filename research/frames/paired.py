"""Differences of two series by seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats


def paired(ours: pd.Series, theirs: pd.Series) -> dict[str, float]:
    """The difference of two series by seed: pairs, difference (mean), its standard error, low and high (95 %)."""
    pairs = (ours - theirs).dropna()
    difference = pairs.mean() if len(pairs) else np.nan
    error = pairs.std() / np.sqrt(len(pairs)) if len(pairs) > 1 else np.nan
    reach = error * stats.t.ppf(0.975, len(pairs) - 1) if len(pairs) > 1 else np.nan
    return {"pairs": len(pairs), "difference": difference, "error": error} | {
        "low": difference - reach,
        "high": difference + reach,
    }
