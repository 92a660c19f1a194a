"""Published results as tables to compare own runs with: one CSV file per table.

``power-grad-imagenet``: ``label`` as printed; ``top1`` (percent), ``correct`` of ``images``; ``checkpoint``; whether
the recipe of the row is ``stated`` or ``inferred``; all others are parameters of runs under their own names.

``cheap-convs``: every number of the research log of cheap convolutions and of its figures, as printed: errors in
percent, sizes, times; ``kind`` says which, ``source`` and ``date`` where from (the log, the one before it, a figure),
and ``note`` what is to be known of it. :func:`research.frames.budgets.published_points` makes points of it.

``sparse``: top-1 (and top-5) accuracy of sparse training in percent, with ``std`` over ``seeds`` where it is known;
``method`` as hooks are called, ``verification`` says how far a number was followed to its ``source``, and rows of three
epochs are the published code under a short protocol. :func:`research.frames.sparse.published_sparse` adds sizes.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from research.errors import UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd


def published_names() -> list[str]:
    """Every table, in alphabetical order."""
    return sorted(file.name.removesuffix(".csv") for file in files(__name__).iterdir() if file.name.endswith(".csv"))


def load_published(name: str) -> pd.DataFrame:
    """The table ``name``, rows in the order of its source.

    Raises:
        UsageError: there is no such table.
    """
    import pandas as pd

    if name not in (names := published_names()):
        raise UsageError(f"unknown table of published results {name!r}{nearest(name, names)}")
    with (files(__name__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
