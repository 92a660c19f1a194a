"""Tables to be read: a frame as Markdown, and comparisons with what they can and cannot tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from research.frames.comparison import CANNOT_TELL, mean_interval


def markdown(frame: pd.DataFrame, digits: int = 2) -> str:
    """A frame as a Markdown table."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            small = 0 < abs(value) < 0.5 * 10**-digits
            return "" if math.isnan(value) else f"{value:.1g}" if small else f"{value:.{digits}f}"
        return str(value).replace("|", r"\|")

    lines = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False, name=None)]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def plus_minus(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and of several values the standard deviation; "" of none."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return ""
    return f"{np.mean(values):.{digits}f}" + (f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else "")


def mean_bounds(values: Sequence[float], digits: int = 2) -> str:
    """The 95 % interval of a mean, ``97.12 to 98.34``; "" where there is none."""
    _, low, high = mean_interval(pd.Series(values, dtype=float))
    return "" if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"


def interval(value: float, low: float, high: float, digits: int = 2, sign: str = "+") -> str:
    """``+0.39 [+0.09, +0.69]``, without brackets where there is no interval; "" of nothing."""
    if math.isnan(value):
        return ""
    told = f"{value:{sign}.{digits}f}"
    return told if math.isnan(low) else f"{told} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def p_value(p: float) -> str:
    return "" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def readable(
    compared: pd.DataFrame,
    names: Mapping[str, str],
    *,
    margin: float | None = None,
    digits: int = 2,
) -> pd.DataFrame:
    """Rows of :func:`research.frames.comparison.compare` as text; ``names``: columns that name a row -> their heads."""

    def row(each: Any) -> dict[str, str]:
        paired, r = each.test == "paired t", "" if math.isnan(each.r) else f", r = {each.r:.2f}"
        over = _counted(each.pairs, "pair") + r if each.pairs else f"{each.n:.0f} and {each.n_against:.0f}, unpaired"
        over = "" if math.isnan(each.difference) else over
        told = {"difference [95 %]": interval(each.difference, each.low, each.high, digits), "over": over}
        told |= {"p": p_value(each.p), "p (Holm)": p_value(each.p_holm)}
        told |= {"effect": "" if math.isnan(each.effect) else f"{'d' if paired else 'g'} = {each.effect:.2f}"}
        told |= {"seen (80 %)": "" if math.isnan(each.seen) else f"{each.seen:.{digits}f}"}
        if margin is not None:
            told |= {f"seeds for {margin:g}": "" if math.isnan(each.needed) else f"{each.needed:.0f}"}
            told |= {f"p of ±{margin:g} or more (Holm)": p_value(each.p_equal_holm)}
        return told | {"verdict": each.verdict}

    texts = pd.DataFrame([row(each) for each in compared.itertuples()], index=compared.index)
    return compared[list(names)].astype(str).rename(columns=names).join(texts)


def notes(compared: pd.DataFrame, margin: float | None = None, digits: int = 2) -> str:
    """Under a table of comparisons: what its numbers are, and what they cannot tell."""
    tests = compared["p"].notna()
    if not tests.any():
        return "Nothing here can be told from chance: that takes several seeds which do not all differ by the same."
    said = [
        f"Intervals: 95 % by Student's t over seeds. p adjusted for {_counted(tests.sum(), 'test')} (Holm). Effect: d "
        "of paired differences, or Hedges' g. Seen: the smallest difference that so many seeds show with 80 % power."
    ]
    unclear = compared[tests & (compared["verdict"] == CANNOT_TELL)]
    if len(unclear):
        ends = (f"{unclear['seen'].agg(end):.{digits}f}" for end in ("min", "max"))
        said.append(
            f"{len(unclear)} of {len(compared)} cannot be told from no difference, which is not to say that there is "
            f"none: it takes one of {' to '.join(dict.fromkeys(ends))} to be seen."
        )
        if margin is None:
            said.append("Equality was not tested, for want of a margin.")
        else:
            said.append(f"To see {margin:g}, the least certain of them needs {unclear['needed'].max():.0f} seeds.")
    if not tests.all():
        said.append(f"{_counted((~tests).sum(), 'row')} without several seeds cannot be told from chance.")
    return " ".join(said)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def levels(values: Iterable[float], tolerance: float) -> dict[float, str]:
    """Value -> its level, such as "14.6-16": a level ends where one is more than ``tolerance`` above its least."""
    found: list[list[float]] = []
    for value in sorted(set(values)):
        if not found or value > found[-1][0] * (1 + tolerance):
            found.append([])
        found[-1].append(value)
    names = {level[0]: "-".join(dict.fromkeys(f"{value:.3g}" for value in (level[0], level[-1]))) for level in found}
    return {value: names[level[0]] for level in found for value in level}
