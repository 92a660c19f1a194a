"""Results of sparse training over seeds: beside published ones, and compared with one another.

Points are those of :func:`research.frames.sparse.sparse_points`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from research.frames.comparison import compare


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """A row a configuration, over seeds: n, top1 (mean), std, params, density, mult_adds, sparse_mult_adds, step_ms."""
    grouped = points.groupby(["configuration", "method", "dataset", "model"], sort=False)
    table = grouped.agg(
        n=("seed", "nunique"), top1=("top1", "mean"), std=("top1", "std"), params=("params", "mean"),
        density=("density", "mean"), mult_adds=("mult_adds", "mean"), sparse_mult_adds=("sparse_mult_adds", "mean"),
        step_ms=("step_ms", "min"), sparsity=("sparsity", "first"), distribution=("distribution", "first"),
        epochs=("epochs", "max"),
    )  # fmt: skip
    return table.reset_index()


def beside_published(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`summary` joined with the published results of the same method, model, data and sparsity."""
    known = published.assign(
        distribution=np.where(published["setting"].str.contains("ERK", na=False), "erk", "uniform")
    )
    same = ["method", "model", "dataset", "sparsity", "distribution"]
    known = known[[*same, "setting", "epochs", "top1", "std", "seeds", "source"]]
    asked = table.assign(sparsity=_nominal(table))[["configuration", *same, "epochs", "n", "top1", "std"]]
    return asked.merge(known, on=same, suffixes=("", " published")).drop(
        columns=["dataset", "sparsity", "distribution"]
    )


def _nominal(table: pd.DataFrame) -> pd.Series:
    """The sparsity asked for; 0 for dense networks; for small ones, the nearest to their size, in hundredths."""
    small = (1 - table["density"] / 100).round(2)
    return table["sparsity"].fillna(small.where(table["method"] == "small", 0.0))


def against_static(
    points: pd.DataFrame, contrasts: Sequence[tuple[str, str]] = (), *, margin: float | None = None
) -> pd.DataFrame:
    """Top-1 of the ``contrasts`` (configuration, against), by :func:`research.frames.comparison.compare`.

    Without them, every sparse configuration against the static one of the same data, network and sparsity: the one that
    is spread over layers as in Erdos-Renyi graphs where there is one. Those without one have no row.
    """
    arms = {name: rows.groupby("seed")["top1"].mean() for name, rows in points.groupby("configuration", sort=False)}
    table = points.drop_duplicates("configuration")
    same = ["dataset", "model", "sparsity"]
    uniform = table["distribution"] == "uniform"
    static = table[table["method"] == "static_sparse"].assign(uniform=uniform).sort_values("uniform")
    static = static.drop_duplicates(same).set_index(same)["configuration"].rename("against")
    beside = table.join(static, on=same, how="inner").query("configuration != against")
    usual = beside[["configuration", "against"]].itertuples(index=False, name=None)
    return compare(arms, [tuple(pair) for pair in contrasts or usual], margin=margin)


def markdown(table: pd.DataFrame, published: pd.DataFrame) -> str:
    """:func:`summary` as a Markdown table, without times, and with the published results added."""
    heads = ["configuration", "n", "top-1 (%)", "published (epochs)", "learnable", "density (%)"]
    heads += ["mult-adds", "at that density"]
    lines = [f"| {' | '.join(heads)} |", "| --- | ---: | ---: | --- |" + " ---: |" * (len(heads) - 4)]
    beside = beside_published(table, published)
    for row in table.itertuples():
        known = [_told(*each) for each in beside.loc[beside["configuration"] == row.configuration, TOLD].to_numpy()]
        cells = [row.configuration, str(row.n), _spread(row.top1, row.std), ", ".join(known), f"{row.params:,.0f}"]
        cells += [f"{row.density:.2f}", f"{row.mult_adds:,.0f}", f"{row.sparse_mult_adds:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TOLD = ["top1 published", "std published", "epochs published", "setting"]


def _told(top1: float, std: float, epochs: float, setting: str) -> str:
    words = [f"{epochs:.0f}" if epochs == epochs else "?", setting if isinstance(setting, str) else ""]
    return f"{_spread(top1, std)} ({'; '.join(filter(None, words))})"


def _spread(mean: float, std: float) -> str:
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std == std else "")
