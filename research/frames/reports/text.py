"""Cells of a table for a paper as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd

from research.frames import tables
from research.frames.groups import RESULTS

SPECIAL = {each: "\\" + each for each in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "≤": r"$\leq$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def markdown(cells: pd.DataFrame, notes: Sequence[str], digits: int) -> str:
    """A Markdown table, and the notes under it."""
    grid = _grid(cells, digits, str, "**{}**".format, r"{}\*".format)
    return tables.markdown(grid) + "\n\n" + " ".join(notes).replace("*:", r"\*:")


def latex(cells: pd.DataFrame, notes: Sequence[str], digits: int) -> str:
    """A LaTeX table with rules of booktabs; the notes are its caption."""
    grid = _grid(cells, digits, escaped, r"\textbf{{{}}}".format, "{}$^{{*}}$".format)
    lines = [" & ".join(line) + r" \\" for line in [list(grid.columns), *grid.itertuples(index=False, name=None)]]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{l{'r' * (grid.shape[1] - 1)}}}", r"\toprule",
        lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}",
        rf"\caption{{{escaped(' '.join(notes))}}}", r"\end{table}",
    ])  # fmt: skip


def escaped(text: str) -> str:
    """``text`` as LaTeX shows it."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def _grid(
    cells: pd.DataFrame,
    digits: int,
    plain: Callable[[str], str],
    bold: Callable[[str], str],
    marked: Callable[[str], str],
) -> pd.DataFrame:
    """A column for the names of rows, and one for each column of results; another one where values are published."""
    alike = cells.loc[cells["n"] > 0, "n"].nunique() < 2
    names = list(dict.fromkeys(cells["row"]))
    columns = {"": list(map(plain, names))}
    for (column, result), part in cells.groupby(["column", "result"], sort=False):
        head, known = ", ".join(filter(None, (column, RESULTS[result]))), part.set_index("row")
        texts = dict.fromkeys(names, "")
        for cell in part[part["n"] > 0].itertuples():
            spread = f" ± {cell.sd:.{digits}f}" if cell.n > 1 else ""
            text = plain(f"{cell.mean:.{digits}f}{spread}" + ("" if alike else f" (n = {cell.n})"))
            text = bold(text) if cell.best else text
            texts[cell.row] = marked(text) if cell.differs else text
        columns[plain(head)] = list(texts.values())
        if part["published"].notna().any():
            found = known["published"].reindex(names)
            columns[plain(f"{head}, published")] = [f"{v:.{digits}f}" if v == v else "" for v in found]
    return pd.DataFrame(columns)
