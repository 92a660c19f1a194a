"""Where the variance of a result comes from: initial weights, order of the data, masks, links, teacher, test set.

By the method of moments: half the squared difference of two runs is, in expectation, the sum of the components of what
differs between them, and of a rest that no source has alone (what the sources do together, and what does not repeat).
Least squares over all pairs of runs gives each component without bias; where sources are crossed, additive effects come
out as their own sample variances. Searle, Casella and McCulloch, Variance Components (1992), chapter 5.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from research.errors import UsageError
from research.frames import Runs
from research.frames.configurations import configuration, key, methods
from research.frames.groups import label_changes, run_results
from research.hooks import HOOKS
from research.models import model_arguments

SOURCES = {  # source -> the parameter that decides it; without that, the seed does
    "initial weights": "seed",
    "order": "order_seed",
    "masks": "mask_seed",
    "links": "model_args.link_seed",
    "teacher": "distill.teacher",
}
REST = "rest"
TEST = "test set"
REPEATS = 1000  # of the study that the intervals are taken over


def levels(changes: list[Mapping[str, Any]], names: list[str]) -> pd.DataFrame:
    """What each run has of each source, a row for each of ``names`` and a column for each source that its runs have.

    ``changes`` are those of :meth:`research.frames.Runs.changes`. Sources that always change together are one column.
    """
    rows = []
    for mine in changes:
        seed = mine.get("seed", 0)
        row = {"initial weights": seed, "order": mine.get("order_seed", seed)}
        if any(HOOKS[name].draws for name in methods(mine) if name in HOOKS):
            row["masks"] = mine.get("mask_seed", seed)
        if "link_seed" in model_arguments(mine.get("model", "resnet8"), {}):
            row["links"] = mine.get("model_args.link_seed", seed)
        if "distill.teacher" in mine:
            row["teacher"] = mine["distill.teacher"]
        rows.append(row)
    table = pd.DataFrame(rows, index=names)
    codes = {source: tuple(pd.factorize(table[source])[0]) for source in table}
    together: dict[tuple, list[str]] = {}
    for source, code in codes.items():
        together.setdefault(code, []).append(source)
    return pd.DataFrame({" with ".join(named): list(code) for code, named in together.items()}, index=names)


def components(values: pd.Series, found: pd.DataFrame) -> pd.DataFrame:
    """The variance of ``values``, one a run, that each column of ``found`` has part in: a row a source, and the rest.

    ============  ====================================================================================================
    ``levels``    how many the source has; of the rest, runs
    ``alone``     variance of runs that differ in this source alone: with what it does together with others
    ``variance``  what it does by itself; below 0 by chance, where it is small
    ``low high``  where 95 % of studies of this design would find it, if effects were normal and their variances these
    ``sd``        the root of the variance; 0 where that is below 0
    ============  ====================================================================================================

    Raises:
        UsageError: fewer than three runs, nothing that varies, or components that this design cannot tell apart.
    """
    found = found.loc[values.index, [name for name in found if found[name].nunique() > 1]]
    codes = found.apply(lambda column: pd.factorize(column)[0]).to_numpy(int)
    if len(values) < 3 or not codes.size:
        raise UsageError("components of variance take three runs or more, and something that varies between them")
    y, differs = values.to_numpy(float), _differing(codes)
    if np.linalg.matrix_rank(differs) < differs.shape[1]:
        raise UsageError(f"these runs cannot tell {', '.join(found)} apart: no two differ in one alone")
    single = differs[:, :-1].sum(axis=1) == 1
    alone = [_half_squares(y)[single & (column == 1)] for column in differs.T[:-1]]
    table = pd.DataFrame({"variance": moments(y, codes)}, index=[*found, REST])
    table["sd"] = np.sqrt(table["variance"].clip(lower=0))
    table[["low", "high"]] = np.quantile(moments(_repeated(codes, table["sd"]), codes), [0.025, 0.975], axis=0).T
    table["levels"] = [*found.nunique(), len(values)]
    table["alone"] = [*(halves.mean() if len(halves) else np.nan for halves in alone), np.nan]
    return table[["levels", "alone", "variance", "low", "high", "sd"]].rename_axis("source")


def moments(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The components (..., K + 1), that of the rest last, of ``values`` (..., N) with levels ``codes`` (N, K)."""
    return _half_squares(values) @ np.linalg.pinv(_differing(codes)).T


def _half_squares(values: np.ndarray) -> np.ndarray:
    """Half the squared difference of every two of the N last (..., pairs)."""
    i, j = np.triu_indices(values.shape[-1], 1)
    return 0.5 * (values[..., i] - values[..., j]) ** 2


def _differing(codes: np.ndarray) -> np.ndarray:
    """Whether the runs of each pair differ in each of K sources, and 1 for the rest (pairs, K + 1)."""
    i, j = np.triu_indices(len(codes), 1)
    return np.column_stack([codes[i] != codes[j], np.ones(len(i))]).astype(float)


def _repeated(codes: np.ndarray, sd: pd.Series) -> np.ndarray:
    """The study again and again, with normal effects of these deviations (REPEATS, N)."""
    random = np.random.default_rng(0)
    values = sd.iloc[-1] * random.standard_normal((REPEATS, len(codes)))
    for column, scale in zip(codes.T, sd.iloc[:-1], strict=True):
        values += scale * random.standard_normal((REPEATS, column.max() + 1))[:, column]
    return values


def decomposed(runs: Runs, result: str = "top1_err") -> Iterator[tuple[str, pd.DataFrame]]:
    """The components of an error (%) for all finished runs that are alike but for what SOURCES name, with a label.

    The row "test set" is the variance of one run's error over test sets of this size, binomial; all runs share theirs,
    so it is no part of the others (NaN for runs of versions that did not count its images). Runs in which nothing
    varies apart from the seed are left out.
    """
    runs = runs[runs["status"] == "finished"].understood()
    changes = runs.changes()
    fixed = [_without_sources(configuration(mine)) for mine in changes]
    groups: dict[Any, list[int]] = {}
    for place, mine in enumerate(fixed):
        groups.setdefault(key(mine), []).append(place)
    labels = label_changes([fixed[places[0]] for places in groups.values()])
    for label, places in zip(labels, groups.values(), strict=True):
        part = runs.iloc[places]
        found = levels([changes[place] for place in places], list(part["name"]))
        values = run_results(part)[result].dropna()
        if sum(found.loc[values.index, name].nunique() > 1 for name in found) > 1:
            try:
                table = pd.concat([components(values, found), _test_set(part, values.mean())])
                yield label, table.astype({"levels": "Int64"})
            except UsageError as error:
                warnings.warn(f"{label} is left out: {error}", stacklevel=2)


def _without_sources(mine: Mapping[str, Any]) -> dict[str, Any]:
    """``mine`` but for what SOURCES name; that there is a teacher stays."""
    kept = {name: value for name, value in mine.items() if name not in SOURCES.values()}
    return kept | ({SOURCES["teacher"]: ""} if SOURCES["teacher"] in mine else {})


def _test_set(runs: Runs, error: float) -> pd.DataFrame:
    """The row "test set" of :func:`decomposed`."""
    rows = runs.metrics
    images = rows.loc[(rows["kind"] == "val") & (rows["metric"] == "images"), "value"].max()
    variance = error * (100 - error) / images
    return pd.DataFrame({"levels": images, "variance": variance, "sd": variance**0.5}, index=[TEST])
